"""From the current scope to the recorder of its run.

Apart from the recorder, because code that only declares steps must not pay for importing that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tapps_otel.otel.seam import SpanRef
from tapps_otel.run.caller import Caller
from tapps_otel.run.scope import OPEN, current_scope

if TYPE_CHECKING:
    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.run.scope import Scope

__all__ = ["caller_here", "recorder_here", "recorder_of"]


def recorder_of(scope: Scope) -> RunRecorder:
    """The recorder of the run that a scope belongs to."""
    return cast("RunRecorder", scope.run)


def recorder_here() -> RunRecorder | None:
    """The recorder of the run whose code calls this."""
    scope = current_scope.get()
    return None if scope is None else recorder_of(scope)


def caller_here() -> Caller | None:
    """The step whose body calls this, if one does: as the caller of a run."""
    scope = current_scope.get()
    if scope is None or scope.step_id is None or scope.state is not OPEN or scope.run.detached:
        return None
    run = recorder_of(scope)
    if run.log_dir is None:
        return None
    return Caller(
        workflow_id=run.workflow_id,
        step_id=scope.step_id,
        log_dir=run.log_dir,
        span=SpanRef(run.trace_id, scope.span_id),
        is_current=scope.span is not None,
        depth=run.depth_of(scope),
        outer=run.caller,
    )
