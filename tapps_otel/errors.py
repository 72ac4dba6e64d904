"""Every error that this package raises on purpose.

The tree; a base stands only where a caller would catch it::

    TappsError
    ├── PlatformError            this system cannot keep a log
    ├── SettingsError            a setting has a value that it cannot have
    ├── InvalidIdError           a run id that cannot name a log
    ├── LogError
    │   ├── LogDamagedError      the log was changed or lost bytes; a person decides
    │   ├── BlobDamagedError     a large value beside the log is gone, or was changed
    │   ├── LogVersionError      written by a newer version of the format
    │   └── LogWriteError        an event could not be written
    ├── RunError
    │   ├── RunNotFoundError     there is no such run
    │   ├── RunBusyError         another process carries the run on
    │   ├── RunConflictError     the id belongs to another workflow or other inputs
    │   ├── RunPausedError       the run waits for an answer
    │   ├── RunEndedError        code of a run that is over called a step
    │   └── RefusalError         resume would do something twice
    │       ├── DivergenceError
    │       ├── StepInterruptedError
    │       └── InterruptedTooOftenError
    ├── SendError                spans could not be sent to a collector
    ├── LedgerError              what was confirmed is not what the log has
    ├── SpansError               spans to compare a run with cannot be read
    └── StepError
        ├── StepFailedError      a recorded failure whose class is not loaded
        ├── StepTimeoutError     the step's own ``timeout=``
        └── ValueNotStoredError
            ├── StepResultError
            ├── StepInputError
            └── WorkflowInputError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BlobDamagedError",
    "DivergenceError",
    "InterruptedTooOftenError",
    "InvalidIdError",
    "LedgerError",
    "LogDamagedError",
    "LogError",
    "LogVersionError",
    "LogWriteError",
    "PlatformError",
    "RefusalError",
    "RunBusyError",
    "RunConflictError",
    "RunEndedError",
    "RunError",
    "RunNotFoundError",
    "RunPausedError",
    "SendError",
    "SettingsError",
    "SpansError",
    "StepError",
    "StepFailedError",
    "StepInputError",
    "StepInterruptedError",
    "StepResultError",
    "StepTimeoutError",
    "TappsError",
    "ValueNotStoredError",
    "WorkflowInputError",
]


class TappsError(Exception):
    """Base of all of them."""


class PlatformError(TappsError):
    """This system has not the file locks or syncs that a log needs (Windows)."""


class SettingsError(TappsError, ValueError):
    """A setting, from ``configure()`` or the environment, has a value that it cannot have."""


class InvalidIdError(TappsError, ValueError):
    """A run id that cannot name a log file."""

    def __init__(self, workflow_id: object) -> None:
        shown = repr(workflow_id)
        super().__init__(
            f"{shown if len(shown) <= 80 else shown[:77] + '...'} cannot be a run id: use 1 to 128 "
            "letters, digits, dots, dashes or underscores, beginning with a letter or a digit, "
            "not ending in '.events', and not 'traces', which is for traces of no run"
        )


class LogError(TappsError):
    """Something is wrong with a log file."""


class LogDamagedError(LogError):
    """A log holds bytes that its chain does not account for; nothing was written.

    :ivar path: the log file
    :ivar offset: first byte, from 0, that is not accounted for
    :ivar seq: the ``seq`` that was due there
    """

    def __init__(self, path: Path | str, offset: int, seq: int, problem: str) -> None:
        self.path, self.offset, self.seq, self.problem = path, offset, seq, problem
        super().__init__(
            f"{path}: damaged at byte {offset}, where seq {seq} was due: {problem}. Nothing was "
            "written. See `tapps-otel verify`; to go on in spite of it: "
            "`tapps-otel repair RUN --accept-damage`"
        )


class BlobDamagedError(LogError):
    """A value too large for the log's lines is not in its file any more.

    :ivar path: the file
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path}: {problem}. Put the file back from a copy: its name is the SHA-256 of its "
            "content. Without one, begin a new run under another id"
        )


class LogVersionError(LogError):
    """A log was written by a newer major version of the format."""

    def __init__(self, path: Path | str, offset: int, version: int) -> None:
        self.path, self.offset, self.version = path, offset, version
        super().__init__(
            f"{path}: line at byte {offset} has format version {version}, this tapps_otel reads "
            "version 1: update tapps_otel (pip install -U tapps_otel)"
        )


class LogWriteError(LogError):
    """An event could not be written; whether it is in the file is unknown until the next open."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path}: cannot write to the log: {problem}. What was acknowledged is safe; free "
            "the cause, then run the workflow again under the same id. `tapps-otel doctor` "
            "checks the folder"
        )


class RunError(TappsError):
    """A run cannot be started, gone on with, or answered."""


class RunNotFoundError(RunError, LookupError):
    """There is no log of that name in the log folder."""

    def __init__(self, workflow_id: str, log_dir: Path | str) -> None:
        self.workflow_id, self.log_dir = workflow_id, log_dir
        super().__init__(
            f"no run {workflow_id!r} in {log_dir}: `tapps-otel list` shows the runs there, "
            "--log-dir or TAPPS_OTEL_LOG_DIR names another folder"
        )


class RunBusyError(RunError):
    """Another execution holds the run's lease.

    :ivar pid: of the holder, ``None`` where unknown
    :ivar host: of the holder, ``None`` where unknown
    """

    def __init__(self, workflow_id: str, pid: int | None, host: str | None) -> None:
        self.workflow_id, self.pid, self.host = workflow_id, pid, host
        super().__init__(
            f"run {workflow_id!r} is being carried on by process {pid or '?'} on {host or '?'}: "
            "wait for it, or end that process; the lease is free as soon as it is dead"
        )


class RunConflictError(RunError):
    """The id belongs to a run of another workflow, or of other inputs."""


class RunPausedError(RunError):
    """The run waits for an answer."""

    def __init__(self, workflow_id: str, question: str | None) -> None:
        self.workflow_id, self.question = workflow_id, question
        super().__init__(
            f"run {workflow_id!r} is paused: {question or 'it waits for an answer'}. "
            f"Give it with resume({workflow_id!r}, answer=...)"
        )


class RunEndedError(RunError):
    """A step was called by code whose run, or enclosing step, is over and did not complete."""

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(
            f"step {name!r} was called by code that outlived {scope}, which has ended without "
            "completing: it is not run"
        )


class RefusalError(RunError):
    """The library refuses to go on, because something might be done twice.

    Never retried. Once raised, every later step call of the run and its end raise it again, so
    that no ``except Exception`` hides it.

    :ivar step_id: the record that stands in the way
    """

    def __init__(self, message: str, step_id: str) -> None:
        self.step_id = step_id
        super().__init__(message)


class DivergenceError(RefusalError):
    """The code came the same way as before, but with other inputs."""


class StepInterruptedError(RefusalError):
    """A step with ``on_interrupted="fail"`` was interrupted: a person says what became of it."""


class InterruptedTooOftenError(RefusalError):
    """A step was interrupted more than ``max_interruptions`` times in a row."""


class SendError(TappsError):
    """Spans could not be sent to a collector. The log has them: they can be sent later.

    :ivar destination: protocol and address
    """

    def __init__(self, destination: str, reason: str) -> None:
        self.destination, self.reason = destination, reason
        super().__init__(f"spans cannot be sent to {destination}: {reason}")


class LedgerError(TappsError):
    """A ledger tells of spans that the log does not have: one of the two was changed."""


class SpansError(TappsError):
    """Spans that a run is to be compared with cannot be read: nothing was compared.

    :ivar place: the file, or the address without secrets
    """

    def __init__(self, place: str, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"no spans can be read from {place}: {reason}")


class StepError(TappsError):
    """A step cannot be run, or its outcome cannot be stored."""


class StepFailedError(StepError):
    """A failure from the log whose exception class cannot be rebuilt here.

    :ivar type: module-qualified name of the class that was raised
    :ivar message: what it said
    """

    def __init__(self, type: str, message: str) -> None:  # noqa: A002 - the field's own name
        self.type, self.message = type, message
        super().__init__(f"{type}: {message}")


class StepTimeoutError(StepError, TimeoutError):
    """A step took longer than its own ``timeout=`` (seconds)."""


class ValueNotStoredError(StepError, TypeError):
    """A value cannot be stored as JSON.

    :ivar path: the place inside the value, as ``$.page.handle``
    """

    def __init__(self, message: str, path: str) -> None:
        self.path = path
        super().__init__(message)


class StepResultError(ValueNotStoredError):
    """A step's result cannot be stored."""


class StepInputError(ValueNotStoredError):
    """A step's inputs cannot be compared with those of an earlier execution."""


class WorkflowInputError(ValueNotStoredError):
    """A workflow's inputs cannot be stored, or are not what its annotations say."""
