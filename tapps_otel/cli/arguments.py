"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from tapps_otel import clock
from tapps_otel.cli.usage import refuse_usage

__all__ = [
    "AllRuns",
    "AsJson",
    "LogDir",
    "OptionalRunId",
    "Quiet",
    "RunId",
    "RunIds",
    "parse_time",
]

_TIME_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.", show_default=False)]
RunIds = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Id of a run.", show_default=False)
]
OptionalRunId = Annotated[
    str | None, typer.Argument(metavar="RUN", help="Id of a run.", show_default=False)
]
AllRuns = Annotated[bool, typer.Option("--all", help="Every run of the log folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
LogDir = Annotated[
    Path | None,
    typer.Option("--log-dir", metavar="DIR", help="Folder of the logs.", show_default=False),
]


def parse_time(text: str) -> int:
    """Parse a time span back from now, a day, or a time (UTC), as ns since 1970 UTC."""
    span = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if span:
        return clock.time_ns() - int(span[1]) * _TIME_UNITS[span[2]] * 1_000_000_000
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        refuse_usage(
            f"--since {text!r} is not a time: give 90s, 15m, 2h, 3d, 2026-11-24 or 2026-11-24T13:30"
        )
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
