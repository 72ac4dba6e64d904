"""Subprocesses of steps."""

from __future__ import annotations

import json
import os

from tapps_otel.otel.seam import PARENT, SpanRef
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.scope import current_scope

__all__ = ["child_env"]


def child_env() -> dict[str, str]:
    """The environment for a subprocess whose spans belong to the trace of the current step.

    ``subprocess.run(command, env=child_env())``. It is this process's environment with the current
    span (``TRACEPARENT``, ``TRACESTATE``, ``BAGGAGE``), the run, and the folder of its log.

    A child process that imports ``tapps_otel``, or has its ``tapps_jsonl`` exporter, joins the
    trace without further code: its spans are children of the current step's span (in its other
    threads where ``bind`` is used); spans of its libraries go into a log next to the run's, which
    only the parent writes; a run that it starts is a separate one, in the same trace and folder.
    Outside a run only the current span is passed on.
    """
    from tapps_otel.otel.propagation import inject

    environment = dict(os.environ)
    scope = current_scope.get()
    span = None
    if scope is not None and not scope.run.detached:
        run = recorder_of(scope)
        span = SpanRef(run.trace_id, scope.span_id)
        folder = str(run.log_dir)
        environment["TAPPS_OTEL_LOG_DIR"] = folder
        environment[PARENT] = json.dumps(
            {"workflow_id": run.workflow_id, "execution": run.execution, "log_dir": folder}
        )
    inject(environment, span)
    return environment
