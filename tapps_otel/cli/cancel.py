"""`cancel`: end a run that has not ended."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import out, say_error
from tapps_otel.errors import RunBusyError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import few, plain

__all__ = ["cancel"]


def cancel(
    workflow_id: str, *, by: str | None, reason: str | None, signal: bool, log_dir: Path | None
) -> Code:
    """Cancel a run, and the runs that its open steps have called.

    :param by: who cancels it
    :param reason: why, for the log
    :param signal: whether a process that executes it is asked to end
    """
    from tapps_otel.run import cancelling

    try:
        done = cancelling.cancel(workflow_id, by=by, reason=reason, signal=signal, log_dir=log_dir)
    except RunBusyError as error:
        say_error(str(error) if signal else f"{error}. With --signal it is asked to end")
        return Code.BUSY
    out().say(Line.of((plain(few(done)), "strong"), " cancelled"))
    return Code.OK
