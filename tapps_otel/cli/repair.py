"""``repair``: declare the damage of a log."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import resume_hint
from tapps_otel.cli.terminal import out
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

__all__ = ["repair"]


def repair(workflow_id: str, *, log_dir: Path | None) -> Code:
    """Declare everything after the last good line as damaged, so that the run can be resumed."""
    from tapps_otel.run.lookup import find
    from tapps_otel.run.resolving import repair as declare

    store, workflow_id = find(workflow_id, log_dir)
    declared = declare(workflow_id, log_dir=log_dir)
    terminal = out()
    if declared is None:
        terminal.say(Line.of(("nothing to repair: ", "good"), plain(workflow_id)))
        return Code.OK
    offset, length, seq = declared
    text = (
        f"declared {counted(length, 'byte')} at byte {offset} as damaged, in seq {seq}; "
        "nothing was removed"
    )
    terminal.say(
        Line.of(("repaired ", "good"), (plain(workflow_id), "strong"), f": {text}"),
        *resume_hint(store, workflow_id, log_dir),
    )
    return Code.OK
