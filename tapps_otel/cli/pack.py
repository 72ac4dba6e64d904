"""``pack`` and ``unpack``: move a run, with all that belongs to it, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tapps_otel.cli.codes import Code
from tapps_otel.cli.output import naming
from tapps_otel.cli.terminal import out
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, few, plain

if TYPE_CHECKING:
    from tapps_otel.run.packing import PackReport

__all__ = ["pack", "unpack"]


def pack(workflow_id: str, file: Path, log_dir: Path | None) -> Code:
    """Write a run to a file."""
    from tapps_otel.run import packing

    with naming(file, "name another file"):
        _say("packed", packing.pack(workflow_id, file, log_dir=log_dir))
    return Code.OK


def unpack(file: Path, log_dir: Path | None) -> Code:
    """Add the runs of a file."""
    from tapps_otel.run import packing

    _say("unpacked", packing.unpack(file, log_dir=log_dir))
    return Code.OK


def _say(word: str, report: PackReport) -> None:
    names = plain(few(report.runs))
    size = f"  {counted(report.files, 'file')}, {counted(report.size, 'byte')}"
    out().say(Line.of(f"{word}  ", (names, "strong"), size))
