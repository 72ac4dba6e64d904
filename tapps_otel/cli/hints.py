"""What to do next with a run, as commands show it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tapps_otel.cli.terminal import command
from tapps_otel.errors import TappsError
from tapps_otel.past.advice import Advice, how_to_resume, import_path, next_steps
from tapps_otel.report.lines import Line, labelled
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.run.reading import Reading

__all__ = ["advice_for", "advice_text", "next_lines", "resume_hint"]


def advice_text(advice: Advice, log_dir: Path | None) -> str:
    """Return what to type next, or to do, safe to show."""
    return plain(command(advice.text, log_dir) if advice.is_command else advice.text)


def resume_hint(store: Store, workflow_id: str, log_dir: Path | None) -> list[Line]:
    """Return the line that says how to resume a run; nothing if it has no log."""
    from tapps_otel.run.lookup import StoredRun

    try:
        with StoredRun(store, workflow_id) as found:
            advice = how_to_resume(found.name, found.workflow)
    except (TappsError, OSError):
        return []
    return [Line.of(("  next: ", "dim"), advice_text(advice, log_dir))]


def next_lines(found: Reading, log_dir: Path | None) -> list[Line]:
    """Return what to do next with a run, or what to choose from; nothing if nothing can be done."""
    return [
        labelled("or" if number else "next", advice_text(advice, log_dir))
        for number, advice in enumerate(advice_for(found))
    ]


def advice_for(found: Reading) -> list[Advice]:
    """Return what can be done next with a run that was read."""
    if found.log.damage is not None:
        return []
    if found.holder is not None:
        return [Advice(f"watch {found.history.workflow_id}")]
    return [_with_code(one, found.history) for one in next_steps(found.history)]


def _with_code(advice: Advice, history: RunHistory) -> Advice:
    """Return advice that works although the file of the run's workflow is not where it was."""
    from tapps_otel.log import files
    from tapps_otel.run.import_path import is_file_name
    from tapps_otel.run.relocation import place_of

    path = import_path(history.workflow)
    if path is None or not advice.is_command or not advice.text.startswith("resume "):
        return advice
    file, _, function = place_of(path, history.workflow).path.rpartition(":")
    if not is_file_name(file) or files.system().is_file(Path(file)):
        return advice
    words = f"{file} is not there: find it, then {command(advice.text)} FILE.py:{function}"
    return Advice(words, is_command=False)
