"""Commands that add to a log where a person has decided: ``repair`` and ``resolve``."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code, refuse_usage
from tapps_otel.cli.terminal import command, out
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

__all__ = ["repair", "resolve"]


def repair(workflow_id: str, *, log_dir: Path | None) -> Code:
    """``repair``: declare the damage at the end of a log."""
    from tapps_otel.run.opening import find
    from tapps_otel.run.resolving import repair as declare

    _, workflow_id = find(workflow_id, log_dir)
    declared = declare(workflow_id, log_dir=log_dir)
    terminal = out()
    if declared is None:
        terminal.say(Line.of(("nothing to repair: ", "good"), plain(workflow_id)))
        return Code.OK
    offset, length, seq = declared
    text = f"declared {length} bytes at byte {offset} as damaged, in seq {seq}; nothing was removed"
    terminal.say(Line.of(("repaired ", "good"), (plain(workflow_id), "strong"), f": {text}"))
    _say_next(workflow_id, log_dir)
    return Code.OK


def resolve(workflow_id: str, step_id: str, result: str | None, *, log_dir: Path | None) -> Code:
    """``resolve``: what became of an interrupted step."""
    from tapps_otel.run.opening import find
    from tapps_otel.run.resolving import resolve as settle

    _, workflow_id = find(workflow_id, log_dir)
    data = None if result is None else _json(result)
    settle(workflow_id, step_id, result=data, log_dir=log_dir)
    words = "will run again" if data is None else "has this result now, and will not run again"
    out().say(Line.of((plain(step_id), "strong"), f" {words}"))
    _say_next(workflow_id, log_dir)
    return Code.OK


def _json(text: str) -> bytes:
    import json

    from tapps_otel.run.values import to_json

    try:
        return to_json(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        refuse_usage(f"""--result is not JSON: {error}. A text needs its quotes: '"done"'""")


def _say_next(workflow_id: str, log_dir: Path | None) -> None:
    text = plain(command(f"resume {workflow_id}", log_dir))
    out().say(Line.of(("  go on: ", "dim"), text))
