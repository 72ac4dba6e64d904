"""Exit codes, and which of them each error of the package leads to."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NoReturn

import typer

from tapps_otel import errors
from tapps_otel.cli.terminal import close_streams, say_error
from tapps_otel.cli.usage import UsageError

__all__ = ["MEANINGS", "Code", "code_of", "finish"]


class Code(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    BUSY = 4
    REFUSED = 5
    LOG = 6
    UNSENT = 7
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS: Final[dict[Code, str]] = {
    Code.OK: "done; a workflow completed, a check found nothing",
    Code.FAILED: "the workflow failed; a check found a problem, or cannot be made; two runs differ",
    Code.USAGE: "wrong usage: arguments, an id, a setting, a workflow that cannot be imported",
    Code.NOT_FOUND: "there is no such run",
    Code.BUSY: "another process is running the run",
    Code.REFUSED: "refused: other inputs or workflow, divergence, interrupted step, paused",
    Code.LOG: "the log is damaged, of a newer format, cut after a send, or cannot be written",
    Code.UNSENT: "a collector cannot be reached, or refused spans; send them again later",
    Code.INTERRUPTED: "interrupted (Ctrl-C); the run can be resumed",
    Code.BROKEN_PIPE: "the reader of the output closed it",
    Code.TERMINATED: "terminated (SIGTERM); the run can be resumed",
}

# The first class that fits decides.
_CODES: Final[tuple[tuple[type[Exception], Code], ...]] = (
    (errors.RunNotFoundError, Code.NOT_FOUND),
    (errors.RunBusyError, Code.BUSY),
    (errors.LeaseLostError, Code.BUSY),
    (errors.RunConflictError, Code.REFUSED),
    (errors.RunPausedError, Code.REFUSED),
    (errors.AnswerError, Code.USAGE),
    (errors.RefusalError, Code.REFUSED),
    (errors.LogError, Code.LOG),
    (errors.SendError, Code.UNSENT),
    (errors.PlatformError, Code.LOG),
    (errors.InvalidIdError, Code.USAGE),
    (errors.AmbiguousIdError, Code.USAGE),
    (errors.SettingsError, Code.USAGE),
    (errors.WorkflowInputError, Code.USAGE),
    (errors.TappsError, Code.FAILED),
)


def code_of(error: errors.TappsError) -> Code:
    """Return the exit code for an error of the package."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def explained(error: errors.TappsError) -> str:
    """Return what an error says, with its notes: they have what may not be in the log."""
    from tapps_otel.past.advice import RESUME_NOTE

    notes = (note for note in getattr(error, "__notes__", ()) if isinstance(note, str))
    # What to do next is shown by the command itself.
    return "\n".join((str(error), *(note for note in notes if not note.startswith(RESUME_NOTE))))


def finish(action: Callable[[], Code]) -> NoReturn:
    """Run a command and exit with its code; an error becomes one message and its code."""
    try:
        code = action()
    except (typer.Exit, UsageError):
        raise
    except errors.TappsError as error:
        say_error(explained(error))
        code = code_of(error)
    except KeyboardInterrupt:
        code = Code.INTERRUPTED
    except OSError as error:
        code = _code_of_os_error(error)
    except Exception as error:  # noqa: BLE001 - a mistake of ours: even then no traceback
        last = traceback.extract_tb(error.__traceback__)[-1]
        say_error(
            f"unexpected {type(error).__name__}: {error} ({last.filename}, line {last.lineno}). "
            "This is a mistake in tapps_otel: please report this line"
        )
        code = Code.FAILED
    if code is Code.BROKEN_PIPE:
        close_streams()
    raise typer.Exit(code)


def _code_of_os_error(error: OSError) -> Code:
    if isinstance(error, BrokenPipeError) or error.errno == errno.EPIPE:
        return Code.BROKEN_PIPE
    where = "" if error.filename is None else f"{error.filename}: "
    say_error(f"{where}{error.strerror or error}")
    return Code.LOG
