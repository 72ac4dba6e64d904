"""``migrate``, ``push`` and ``pull``: the store of runs."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import out
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

__all__ = ["migrate", "pull", "push"]


def migrate() -> Code:
    """Make the tables of the store, or bring them up to date."""
    from tapps_otel.run import mirrors

    before, now = mirrors.migrate()
    out().say(
        f"the store has version {now} already" if before == now else f"the store has version {now}"
    )
    return Code.OK


def push(workflow_id: str, log_dir: Path | None) -> Code:
    """Let the store have what the folder has of a run."""
    from tapps_otel.run import mirrors

    seq = mirrors.push(workflow_id, log_dir=log_dir)
    out().say(Line.of("pushed  ", (plain(workflow_id), "strong"), f"  {counted(seq, 'event')}"))
    return Code.OK


def pull(workflow_id: str, log_dir: Path | None) -> Code:
    """Let the folder have what the store has of a run."""
    from tapps_otel.run import mirrors

    changed = mirrors.pull(workflow_id, log_dir=log_dir)
    what = f"{counted(changed, 'log')} changed" if changed else "nothing had changed"
    out().say(Line.of("pulled  ", (plain(workflow_id), "strong"), f"  {what}"))
    return Code.OK
