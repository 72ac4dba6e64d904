"""``resolve``: settle an interrupted step."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import resume_hint
from tapps_otel.cli.terminal import out
from tapps_otel.cli.usage import parse_json
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

__all__ = ["resolve"]


def resolve(
    workflow_id: str,
    step_id: str,
    result: str | None,
    *,
    reason: str | None = None,
    log_dir: Path | None,
) -> Code:
    """Store a result for an interrupted step, or let it run again.

    :param result: JSON; ``None`` to run the step again
    :param reason: why, for the log
    """
    from tapps_otel.run.codecs.native import to_json
    from tapps_otel.run.lookup import find
    from tapps_otel.run.resolving import resolve as settle

    store, workflow_id = find(workflow_id, log_dir)
    data = None if result is None else to_json(parse_json(result, "--result"))
    settle(workflow_id, step_id, result=data, reason=reason, log_dir=log_dir)
    words = "will run again" if data is None else "has this result now, and will not run again"
    hint = resume_hint(store, workflow_id, log_dir)
    out().say(Line.of((plain(step_id), "strong"), f" {words}"), *hint)
    return Code.OK
