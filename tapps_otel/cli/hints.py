"""What to do next with a run, as commands show it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tapps_otel.cli.terminal import command
from tapps_otel.errors import TappsError
from tapps_otel.past.advice import Advice, how_to_resume
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from tapps_otel.log.store import Store

__all__ = ["advice_text", "resume_hint"]


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
