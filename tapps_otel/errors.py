"""The exceptions that this package raises.

A base class exists only where a caller would catch it::

    TappsError
    ├── PlatformError            this system cannot keep a log
    ├── SettingsError            a setting has an invalid value
    ├── InvalidIdError           a run id that cannot name a log
    ├── AmbiguousIdError         the beginning of the ids of several runs
    ├── LogError
    │   ├── LogDamagedError      a log was changed or lost bytes; nothing was written
    │   ├── BlobDamagedError     a large value of the log is missing or was changed
    │   ├── LogVersionError      a log has a newer format
    │   ├── DecryptionError      encrypted values cannot be decrypted
    │   │   ├── CodecError           their codec failed
    │   │   └── EncryptionKeyError   their key is not configured
    │   ├── LogWriteError        an event could not be written
    │   │   └── LeaseLostError   another process has taken the run over
    │   ├── StoreError           the store of runs cannot be reached or used
    │   └── LedgerError          a log no longer has what a collector confirmed
    ├── RunError
    │   ├── RunNotFoundError     there is no such run
    │   ├── RunBusyError         the run is in progress in another process
    │   ├── RunConflictError     the id belongs to another workflow or other inputs
    │   ├── RunPausedError       the run waits for an answer, or for a time
    │   ├── AnswerError          an answer does not fit its question
    │   ├── RunEndedError        a step was called after its run or enclosing step had ended
    │   ├── RunRecursionError    a run is called inside itself
    │   ├── StepNestingError     steps call each other too deep
    │   └── RefusalError         something might be done twice
    │       ├── DivergenceError
    │       ├── FailureDetailError
    │       ├── StoredResultError
    │       └── StepInterruptedError
    │           └── InterruptedTooOftenError
    ├── SendError                spans could not be sent to a collector
    ├── ArchiveError             a file is not an archive of runs
    ├── SpanFilterError          the setting span_filter failed
    ├── SpansError               spans to compare a run with could not be read
    └── StepError
        ├── StepFailedError      a recorded failure whose class is not loaded
        ├── StepTimeoutError     a step exceeded its own ``timeout=``
        └── ValueNotStoredError
            ├── StepResultError
            ├── StepInputError
            └── WorkflowInputError
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "AmbiguousIdError",
    "AnswerError",
    "ArchiveError",
    "BlobDamagedError",
    "CodecError",
    "DecryptionError",
    "DivergenceError",
    "EncryptionKeyError",
    "FailureDetailError",
    "InterruptedTooOftenError",
    "InvalidIdError",
    "LeaseLostError",
    "LedgerError",
    "LogDamagedError",
    "LogError",
    "LogVersionError",
    "LogWriteError",
    "PlatformError",
    "RefusalError",
    "ResultOmittedError",
    "RunBusyError",
    "RunConflictError",
    "RunEndedError",
    "RunError",
    "RunNotFoundError",
    "RunPausedError",
    "RunRecursionError",
    "SendError",
    "SettingsError",
    "SpanFilterError",
    "SpansError",
    "StepError",
    "StepFailedError",
    "StepInputError",
    "StepInterruptedError",
    "StepNestingError",
    "StepResultError",
    "StepTimeoutError",
    "StoreError",
    "StoredResultError",
    "TappsError",
    "ValueNotStoredError",
    "WorkflowInputError",
]


_MOST_QUESTIONS: Final = 5  # in a message


class TappsError(Exception):
    """Base class of all exceptions of this package.

    :ivar without_values: what encrypted logs have in plain text of a message that quotes values
    """

    without_values: str | None = None


class PlatformError(TappsError):
    """This system lacks the file locks or syncs that a log needs (Windows)."""


class SettingsError(TappsError, ValueError):
    """A setting, from ``configure()`` or the environment, has an invalid value."""


class InvalidIdError(TappsError, ValueError):
    """A run id that cannot name a log file."""

    def __init__(self, workflow_id: object) -> None:
        shown = repr(workflow_id)
        super().__init__(
            f"{shown if len(shown) <= 80 else shown[:77] + '...'} cannot be a run id: use 1 to 128 "
            "letters, digits, dots, dashes or underscores, beginning with a letter or a digit and "
            "not ending in '.events'; 'traces' is reserved for spans outside any run, "
            "'pruned' for what prune removes"
        )


class AmbiguousIdError(TappsError, LookupError):
    """The ids of several runs begin like the one that a command was given.

    :ivar given: the beginning
    :ivar found: some of these runs, those written to last first
    """

    def __init__(self, given: str, found: Sequence[str], *, more: bool = False) -> None:
        self.given, self.found = given, tuple(found)
        names = ", ".join(self.found) + (", ..." if more else "")
        super().__init__(f"several runs begin with {given!r}: {names}. Give more of the id")


class LogError(TappsError):
    """Base class of what is wrong with a log or one of its files."""


class LogDamagedError(LogError):
    """A log holds bytes that its hash chain does not verify; nothing was written.

    :ivar path: the log file
    :ivar offset: offset of the first unverified byte
    :ivar seq: the ``seq`` that was expected there
    :ivar problem: what is wrong with the line at ``offset``
    """

    def __init__(
        self, path: Path | str, offset: int, seq: int, problem: str, *, in_store: bool = False
    ) -> None:
        self.path, self.offset, self.seq, self.problem = path, offset, seq, problem
        what, command = (
            ("set it aside and use the lines that the store has", "pull RUN")
            if in_store
            else ("continue in spite of the damage", "repair RUN --accept-damage")
        )
        # Who reads a log does not know what a store has of it.
        or_else = "" if in_store else ", or `tapps-otel pull RUN` if a store has the run"
        super().__init__(
            f"{path}: damaged at byte {offset}, where seq {seq} was expected: {problem}. Nothing "
            f"was written. Inspect the log with `tapps-otel verify`; to {what}, run "
            f"`tapps-otel {command}`{or_else}"
        )


class BlobDamagedError(LogError):
    """The file of a large value is missing, unreadable or was changed.

    :ivar path: the file
    :ivar problem: what is wrong with it
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path}: {problem}. Restore the file from a backup: its name is the SHA-256 of its "
            "content. Without a backup, start a new run under another id"
        )


class LogVersionError(LogError):
    """A log was written in a newer major version of the format.

    :ivar path: the log file
    :ivar offset: offset of the first line of the newer version
    :ivar version: that version
    """

    def __init__(self, path: Path | str, offset: int, version: int) -> None:
        self.path, self.offset, self.version = path, offset, version
        super().__init__(
            f"{path}: the line at byte {offset} has format version {version}, but this tapps_otel "
            "reads version 1: upgrade it (pip install -U tapps_otel)"
        )


class DecryptionError(LogError):
    """Encrypted values of a run cannot be decrypted. No run is resumed without its values.

    :ivar workflow_id: the run
    :ivar place: the event that has them, with its step, or the blob
    :ivar key_id: id of the key
    :ivar problem: why they cannot
    """

    def __init__(self, workflow_id: str, place: str, key_id: str, problem: str) -> None:
        self.workflow_id, self.place = workflow_id, place
        self.key_id, self.problem = key_id, problem
        super().__init__(self._explained())

    _advice = (
        "Configure the key of this id with which the run was written; if it is that key, restore "
        "the log and its blobs from a backup"
    )

    def _explained(self) -> str:
        return (
            f"run {self.workflow_id!r}: the values of {self.place} cannot be decrypted with key "
            f"{self.key_id!r}: {self.problem}. No run is resumed without its values. {self._advice}"
        )


class CodecError(DecryptionError):
    """The codec failed to decrypt values of a run, as while a key service does not answer."""

    _advice = "Try again once the codec works: `tapps-otel doctor` tries it"


class EncryptionKeyError(DecryptionError):
    """Values of a run are encrypted with a key that is not configured."""

    def _explained(self) -> str:
        return (
            f"run {self.workflow_id!r}: the values of {self.place} are encrypted with key "
            f"{self.key_id!r}, which is not configured. No run is resumed without its "
            "values. Add the key to TAPPS_OTEL_ENCRYPTION_KEYS or to what configure() is given, "
            "then try again. If the key is lost, the values are too: start a new run under "
            "another id"
        )


class LogWriteError(LogError):
    """An event could not be written.

    Whether the file holds it is unknown until the log is opened again.

    :ivar path: the log file
    :ivar problem: what the system or the codec reported
    """

    without_values = "the log could not be written (the reason is encrypted)"

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path}: cannot write to the log: {problem}. Acknowledged events are safe; fix the "
            "cause, then run the workflow again under the same id. `tapps-otel doctor` checks "
            "the folder"
        )


class LeaseLostError(LogWriteError):
    """Another process has taken the run over.

    The lease's file was removed or replaced, or the connection to the store of runs had ended.

    Every later event raises it, whatever ``on_log_failure`` is: two processes must not execute one
    run. Only the run of a third-party executor continues, without its log, unless that is ``stop``.

    :ivar path: the log file
    :ivar problem: who has the lease
    """

    def __init__(self, path: Path | str, pid: int | None, host: str | None) -> None:
        self.path, self.problem = path, f"process {pid or '?'} on {host or '?'} executes the run"
        LogError.__init__(
            self,
            f"{path}: {self.problem}: it took the lease after this process had lost it. (Its file "
            "was removed or replaced, or the connection to the store had ended.) This process "
            "stops: two must not execute one run. The log has what it did until then; wait for the "
            "other process, or end it and resume the run",
        )


class StoreError(LogError):
    """The store of runs cannot be reached or used.

    :ivar store: its address, without password
    :ivar problem: why
    """

    def __init__(self, store: str, problem: str, advice: str) -> None:
        self.store, self.problem = store, problem
        super().__init__(f"store {store}: {problem}. {advice}")


class LedgerError(LogError):
    """A collector confirmed spans of lines that the log no longer has."""


class RunError(TappsError):
    """Base class of why a run cannot be started, resumed or answered."""


class RunNotFoundError(RunError, LookupError):
    """The log folder, and the store if there is one, have no log of that name.

    :ivar workflow_id: the id that was looked for
    :ivar log_dir: the log folder
    :ivar store: the store, without password; ``None`` if none was asked
    """

    def __init__(self, workflow_id: str, log_dir: Path | str, store: str | None = None) -> None:
        self.workflow_id, self.log_dir, self.store = workflow_id, log_dir, store
        if store is None:
            other = "--log-dir or TAPPS_OTEL_LOG_DIR selects another folder"
        else:
            other = "TAPPS_OTEL_STORE selects another store, and --log-dir another folder"
        super().__init__(
            f"no run {workflow_id!r} in {log_dir}{'' if store is None else f', nor in {store}'}: "
            f"`tapps-otel list` shows the runs there; {other}"
        )


class RunBusyError(RunError):
    """The run is in progress: another execution holds its lease.

    :ivar workflow_id: the run
    :ivar pid: process id of the holder, ``None`` if unknown
    :ivar host: host of the holder, ``None`` if unknown
    """

    def __init__(self, workflow_id: str, pid: int | None, host: str | None) -> None:
        self.workflow_id, self.pid, self.host = workflow_id, pid, host
        super().__init__(
            f"run {workflow_id!r} is in progress in this process: wait until that call has ended"
            if pid == os.getpid()
            else f"run {workflow_id!r} is in progress in process {pid or '?'} on {host or '?'}: "
            "wait for it, or end that process; its lease is released when the process ends"
        )


class RunConflictError(RunError):
    """The id belongs to a run of another workflow, or with other inputs."""


class Question(NamedTuple):
    """What a paused run waits for.

    :ivar workflow_id: the run that asks: the paused one, or a run that one of its steps called
    :ivar step_id: the pause
    :ivar question: its words; ``None`` for a timer
    :ivar until: when it stops to wait, RFC 3339 UTC; ``None`` if it waits for ever
    """

    workflow_id: str
    step_id: str
    question: str | None
    until: str | None

    @property
    def command(self) -> str | None:
        """The command that answers it; ``None`` for a timer."""
        if self.question is None:
            return None
        step = shlex.quote(self.step_id)
        return f"tapps-otel answer {shlex.quote(self.workflow_id)} {step} --json JSON"

    def __str__(self) -> str:
        words = "waits" if self.question is None else self.question
        return words if self.until is None else f"{words} (until {self.until})"


class RunPausedError(RunError):
    """The run waits for an answer, or for a time; its process need not.

    Raised out of the workflow that calls :func:`~tapps_otel.pause`, and when the run is called
    or resumed before there is anything to continue with.

    :ivar workflow_id: the run
    :ivar questions: what it waits for
    :param options: of the commands that the message names, as `` --log-dir logs``
    :ivar question: the first of its questions; ``None`` if it waits for a time only
    """

    def __init__(
        self, workflow_id: str, questions: Sequence[Question] = (), options: str = ""
    ) -> None:
        self.workflow_id, self.questions = workflow_id, tuple(questions)
        asked = [one for one in self.questions if one.question is not None]
        self.question = asked[0].question if asked else None
        resume = f"`tapps-otel resume {workflow_id}{options}`"
        if len(asked) == 1:
            how = f"Answer with `{asked[0].command}{options}`, then {resume}"
        elif asked:
            how = f"Answer with `tapps-otel answer RUN STEP --json JSON{options}`, then {resume}"
        else:
            how = f"`tapps-otel resume --due{options}` resumes what is due"
        named = "; ".join(
            str(one) if len(self.questions) == 1 else f"{one.step_id}: {one}"
            for one in self.questions[:_MOST_QUESTIONS]
        )
        more = len(self.questions) - _MOST_QUESTIONS
        and_more = f"; and {more} more" if more > 0 else ""
        super().__init__(
            f"run {workflow_id!r} is paused: {named or 'it waits for an answer'}{and_more}. {how}"
        )


class AnswerError(RunError, ValueError):
    """An answer does not fit the type that its question asks for; nothing was written.

    :ivar step_id: the pause
    :ivar path: place inside the answer, as ``$.page.title``
    :ivar problem: what is wrong there
    """

    def __init__(self, step_id: str, path: str, problem: str) -> None:
        self.step_id, self.path, self.problem = step_id, path, problem
        super().__init__(f"the answer does not fit the question of {step_id!r}: {path}: {problem}")


class RunEndedError(RunError):
    """A step was called after its run, or enclosing step, had ended without completing."""

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(
            f"step {name!r} was called after {scope} had ended without completing: it was not run"
        )


class ResultOmittedError(RunError):
    """A run has completed, and its result is not in its log.

    :ivar workflow_id: the run
    :ivar reason: why it is not
    """

    def __init__(self, workflow_id: str, reason: str) -> None:
        self.workflow_id, self.reason = workflow_id, reason
        super().__init__(
            f"run {workflow_id!r} has completed, and its result is not in the log ({reason}). To "
            "compute it again, start a run with another id"
        )


class RunRecursionError(RunError):
    """A run is called inside itself, under its own id.

    :ivar workflow_id: the run
    """

    def __init__(self, workflow_id: str, inside: Sequence[str]) -> None:
        self.workflow_id = workflow_id
        super().__init__(
            f"run {workflow_id!r} is called inside itself ({' > '.join(inside)}), and would wait "
            "for itself for ever. Give the inner call another id; without one it is a step of the "
            "run that calls it"
        )


class StepNestingError(RunError):
    """Steps call each other more than 64 deep, as by an endless recursion.

    The steps of a child run count with those around its call.
    """


class RefusalError(RunError):
    """Base class of refusals to run a step that might be done twice.

    A refusal is never retried. Once raised, it is raised again by every later step call of the
    run and by its end, so that no ``except Exception`` hides it.

    :ivar step_id: the recorded step that is the reason
    """

    def __init__(self, message: str, step_id: str) -> None:
        self.step_id = step_id
        super().__init__(message)


class DivergenceError(RefusalError):
    """A call has other inputs than the recorded call in the same place."""


class FailureDetailError(RefusalError):
    """A handler reads a part of a recorded failure that the log could not keep.

    :ivar detail: name of the attribute
    """

    without_values = "a part of a recorded failure is not in the log (the reason is encrypted)"

    def __init__(self, message: str, step_id: str, detail: str) -> None:
        self.detail = detail
        super().__init__(message, step_id)


class StoredResultError(RefusalError):
    """A stored result can no longer be read: the step's annotation, or a class, has changed."""

    without_values = "a stored result cannot be read (what is wrong with it is encrypted)"


class StepInterruptedError(RefusalError):
    """A step with ``on_interrupted="fail"`` was interrupted and must be resolved first."""


class InterruptedTooOftenError(StepInterruptedError):
    """A step was interrupted more than ``max_interruptions`` times in a row."""


class SendError(TappsError):
    """Spans could not be sent to a collector; the log has them, to send later.

    :ivar destination: protocol and address
    :ivar reason: why they could not be sent
    """

    def __init__(self, destination: str, reason: str) -> None:
        self.destination, self.reason = destination, reason
        super().__init__(f"cannot send spans to {destination}: {reason}")


class SpanFilterError(TappsError):
    """The setting ``span_filter`` failed on a span: neither it nor a later one was sent.

    :ivar span: the span's name
    :ivar problem: what the filter raised or returned
    """

    def __init__(self, span: str, problem: str) -> None:
        self.span, self.problem = span, problem
        super().__init__(
            f"the setting span_filter failed on span {span!r}: {problem}. Neither this span nor a "
            "later one was sent; correct the filter, then try again"
        )


class ArchiveError(TappsError):
    """A file is not an archive of runs, or holds what no run has; nothing was unpacked.

    :ivar path: the file
    :ivar problem: what is wrong with it
    """

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path}: cannot be unpacked: {problem}. Nothing was added; use a file that "
            "`tapps-otel pack` wrote"
        )


class SpansError(TappsError):
    """Spans to compare a run with could not be read; nothing was compared.

    :ivar place: the file, or the address without secrets
    :ivar reason: why they could not be read
    """

    def __init__(self, place: str, reason: str) -> None:
        self.place, self.reason = place, reason
        super().__init__(f"cannot read spans from {place}: {reason}")


class StepError(TappsError):
    """Base class of why a step failed or its values cannot be stored."""


class StepFailedError(StepError):
    """A recorded failure whose exception class is not loaded here.

    What is raised inherits from those of its bases that are loaded, too.

    :ivar type: module-qualified name of the class that was raised
    :ivar message: its message
    """

    def __init__(self, type: str, message: str) -> None:  # noqa: A002 - the field's own name
        self.type, self.message = type, message
        super().__init__(f"{type}: {message}")


class StepTimeoutError(StepError, TimeoutError):
    """A step took longer than its own ``timeout=``."""


class ValueNotStoredError(StepError, TypeError):
    """Base class for values that cannot be stored as JSON.

    :ivar path: place inside the value, as ``$.page.handle``
    """

    without_values = "a value cannot be stored or read (what is wrong with it is encrypted)"

    def __init__(self, message: str, path: str) -> None:
        self.path = path
        super().__init__(message)


class StepResultError(ValueNotStoredError):
    """A step's result cannot be stored."""


class StepInputError(ValueNotStoredError):
    """A step's inputs cannot be compared with those of an earlier execution."""


class WorkflowInputError(ValueNotStoredError):
    """A workflow's inputs cannot be stored, or do not match its annotations."""
