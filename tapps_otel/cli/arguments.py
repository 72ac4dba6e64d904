"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tapps_otel import clock
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.names import LAST_RUN

__all__ = [
    "AllRuns",
    "AsJson",
    "FirstRun",
    "Last",
    "LogDir",
    "OneRun",
    "Quiet",
    "Reason",
    "RunId",
    "RunIds",
    "SecondRun",
    "StepId",
    "chosen_run",
    "chosen_step",
    "given_run",
    "parse_size",
    "parse_span",
    "parse_time",
]

_MOST_OFFERED: Final = 50  # runs, by a shell
_TIME_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds


def _complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Return the runs that a shell offers, those written to last first."""
    from tapps_otel.errors import TappsError
    from tapps_otel.run.lookup import store_of

    try:
        store = store_of(context.params.get("log_dir"))
        found = [*islice(store.beginning_with(incomplete), _MOST_OFFERED)]
    except (TappsError, OSError):  # completion cannot show errors
        found = []
    return found + [LAST_RUN] * LAST_RUN.startswith(incomplete)


def _run(metavar: str, text: str) -> Any:
    """Make an argument that is a run, which a shell can complete."""
    return typer.Argument(
        metavar=metavar, help=text, show_default=False, autocompletion=_complete_run
    )


_RUN: Final = "Id of a run, or its beginning; @last: the run that was written to last."
RunId = Annotated[str | None, _run("RUN", _RUN)]
RunIds = Annotated[list[str] | None, _run("RUN...", _RUN)]
OneRun = Annotated[str, _run("RUN", _RUN)]
FirstRun = Annotated[str, _run("A", _RUN)]
SecondRun = Annotated[str, _run("B", "Another run.")]
StepId = Annotated[
    str | None,
    typer.Argument(metavar="STEP", help="Id of a step, as show prints it.", show_default=False),
]
Last = Annotated[bool, typer.Option("--last", help="The run that was written to last.")]
AllRuns = Annotated[bool, typer.Option("--all", help="Every run of the log folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why, for the log.", show_default=False)
]
LogDir = Annotated[
    Path | None,
    typer.Option("--log-dir", metavar="DIR", help="Folder of the logs.", show_default=False),
]


def chosen_run(given: str | None, *, last: bool, log_dir: Path | None) -> str:
    """Return the name of the log of the run that the arguments mean.

    :param given: its id, its beginning, or ``@last``
    :param last: whether ``--last`` was given
    """
    from tapps_otel.run.lookup import choose

    return choose(given_run(given, last=last), log_dir)


def given_run(given: str | None, *, last: bool) -> str:
    """Return the argument RUN; with ``--last``, it is ``@last``."""
    if (given is None) is not last:
        refuse_usage("give the id of a run, or --last")
    return LAST_RUN if given is None else given


def chosen_step(run: str | None, step: str | None, *, last: bool) -> tuple[str | None, str | None]:
    """Return the arguments RUN and STEP: with ``--last``, the only one given is STEP."""
    return (None, run) if last and step is None else (run, step)


def parse_span(text: str) -> timedelta:
    """Parse a time span as ``90d``."""
    seconds = _span_seconds(text)
    if seconds is None:
        refuse_usage(f"--older-than {text!r} is not a time span: give 90s, 15m, 2h, 3d or 8w")
    return timedelta(seconds=seconds)


def _span_seconds(text: str) -> int | None:
    """Return the length of a time span as ``90d``; ``None`` if it is not one."""
    span = re.fullmatch(r"(\d{1,8})([smhdw])", text.strip())
    return None if span is None else int(span[1]) * _TIME_UNITS[span[2]]


def parse_size(text: str) -> int:
    """Parse a size as ``5GB`` or ``500MiB``, in bytes."""
    size = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?) ?([kmgt]?)(i?)b?", text.strip().lower())
    if size is None or (size[3] and not size[2]):
        refuse_usage(f"--max-size {text!r} is not a size: give 5GB, 500MiB or a number of bytes")
    return int(float(size[1]) * (1024 if size[3] else 1000) ** " kmgt".index(size[2] or " "))


def parse_time(text: str) -> int:
    """Parse a time span back from now, a day, or a time (UTC), as ns since 1970 UTC."""
    seconds = _span_seconds(text)
    if seconds is not None:
        return clock.time_ns() - seconds * 1_000_000_000
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        refuse_usage(
            f"--since {text!r} is not a time: give 90s, 15m, 2h, 3d, 2026-11-24 or 2026-11-24T13:30"
        )
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
