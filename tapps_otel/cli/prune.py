"""``prune``: remove old runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import err, out, write_json
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from tapps_otel.run.pruning import PrunedRun

__all__ = ["prune"]


def prune(
    conditions: dict[str, Any], *, dry_run: bool, as_json: bool, log_dir: Path | None
) -> Code:
    """Remove runs, and write a line for each as soon as it is gone."""
    from tapps_otel.run import pruning

    word = "would be removed" if dry_run else "removed"

    def say(one: PrunedRun) -> None:
        if not as_json:
            size = f"  {one.status or 'spans'}, {counted(one.size, 'byte')}, {one.why}"
            out().say(Line.of(f"{word}  ", (plain(one.workflow_id), "strong"), plain(size)))

    report = pruning.prune(**conditions, dry_run=dry_run, log_dir=log_dir, progress=say)
    if as_json:
        write_json({**asdict(report), "dry_run": dry_run, "size": report.size})
        return Code.OK
    for one in report.kept:
        reason = f"  {plain(one.why)}"
        out().say(Line.of("kept     ", (plain(one.workflow_id), "strong"), (reason, "dim")))
    total = f"{counted(len(report.pruned), 'run')} {word}, {counted(report.size, 'byte')}"
    err().say(Line.of((f"{total}; {counted(report.left, 'byte')} left", "dim")))
    return Code.OK
