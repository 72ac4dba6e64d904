"""The state of a run in this process: its log, its current scope, what was refused."""

from __future__ import annotations

import logging
import threading
from threading import get_ident
from typing import TYPE_CHECKING, Any

from tapps_otel import clock
from tapps_otel.errors import FailureDetailError, ResultOmittedError
from tapps_otel.log.reports import report
from tapps_otel.names import new_trace_id
from tapps_otel.redact import NO_RULES
from tapps_otel.run import failures
from tapps_otel.run.attempt import is_from_outside
from tapps_otel.run.codecs.native import from_json
from tapps_otel.run.event_writer import make_writer, write_nothing
from tapps_otel.run.outside import note_closed
from tapps_otel.run.replay_state import ReplayState
from tapps_otel.run.scope import COMPLETED, FAILED, current_scope, leave_scope, running_task
from tapps_otel.run.signals import SigtermHandler
from tapps_otel.run.waiting import Waits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tapps_otel.errors import RefusalError
    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.event import Event
    from tapps_otel.log.lease import Lease
    from tapps_otel.log.writer import LogWriter
    from tapps_otel.otel.seam import EventWatcher, Tracing
    from tapps_otel.past.fold import Fold, StepHistory
    from tapps_otel.redact import Rules
    from tapps_otel.run.caller import Caller
    from tapps_otel.run.policy import OnDivergence
    from tapps_otel.run.scope import Scope

__all__ = ["RunState"]

_log = logging.getLogger("tapps_otel")


class RunState:
    """What this process knows and holds of a run.

    :param strict: whether a step that changes its arguments fails
    :param module: of the workflow's function
    :param off: the library is switched off: steps are plain calls
    :ivar detached: this process does not execute it: switched off, or a forked child
    :cvar in_worker: another process executes it, and this one a step of it
    :ivar off: why steps are plain calls is known: no warning tells it
    :ivar caller: the step of another run that called this one
    :ivar workflow_id: names the run and its log
    :ivar workflow: the field of that name in the log
    :ivar execution: 1, 2, ...: which of the run's executions this is
    :ivar clock: gives its events their times
    :ivar started_ns: when this execution began by that clock, ns since 1970 UTC
    :ivar started_monotonic: when it began by the monotonic clock, ns
    :ivar terminated: whether the process was asked to end
    :ivar rules: what is redacted before it is logged or sent
    :ivar redacts_results: whether a result is not stored if redaction would alter it
    :ivar hides_values: whether a codec encrypts values
    :ivar captures_inputs: whether the inputs of steps are logged, not only their digests
    :ivar renamed: by the name of a module, the one by which the log knows its steps
    :ivar writer: of its log; ``None`` where this process writes none
    :ivar write: writes an event
    :ivar waits: what it waits for
    :ivar root: the scope of the workflow itself
    """

    in_worker = False
    root: Scope

    def __init__(
        self,
        workflow_id: str,
        name: str,
        *,
        fold: Fold,
        blobs: Blobs,
        execution: int = 0,
        lease: Lease | None = None,
        writer: LogWriter | None = None,
        tracing: Tracing | None = None,
        watchers: Sequence[EventWatcher] = (),
        capture_inputs: bool = False,
        rules: Rules | None = None,
        redact_results: bool = False,
        strict: bool = False,
        on_divergence: OnDivergence = "fail",
        module: failures.WorkflowModule | None = None,
        renamed: Mapping[str, str] | None = None,
        caller: Caller | None = None,
        off: bool = False,
    ) -> None:
        self.workflow_id, self.name, self.execution = workflow_id, name, execution
        self.caller, self.renamed = caller, renamed
        self.lock = threading.RLock()
        self.trace_id = new_trace_id()  # until the log or the SDK gives another
        self.detached, self.off = off, off
        self._sigterm: SigtermHandler | None = None
        self.terminated = False
        self.replay = ReplayState(
            workflow_id, fold, blobs, on_divergence, module, execution=execution
        )
        self.waits = Waits(workflow_id)
        self.is_paused_in = self.waits.is_paused_in
        self.check_not_paused = self.waits.check_not_paused
        self.blobs, self.tracing, self._watchers = blobs, tracing, watchers
        self.hides_values = blobs.codec is not None
        self.captures_inputs, self.strict = capture_inputs, strict
        self.rules = rules or NO_RULES
        self.redacts_results = redact_results
        self._attach_log(lease, writer)
        self._warned: set[str] = set()
        outer = current_scope.get()  # a child run is inside a step of the run that calls it
        self.clock = clock.RunClock() if outer is None else outer.run.clock
        self.started_ns, self.started_monotonic = self.clock.read()
        self.workflow: Mapping[str, Any] = {}
        self._token: Any = None
        self._span_token: object = None
        self._compose()

    def _compose(self) -> None:
        """Make the parts of the run that refer to it."""

    def _attach_log(self, lease: Lease | None, writer: LogWriter | None) -> None:
        self._lease, self.writer = lease, writer
        self.write = make_writer(None if self.detached else writer, self._watchers)

    # -- what it is

    @property
    def done(self) -> bool:
        """Whether the run was complete when it was opened: nothing more is written."""
        return self.writer is None and not self.detached

    @property
    def result(self) -> Any:
        """The stored result of a run that is ``done``, as plain JSON values."""
        return None if not self.done else from_json(self.result_json)

    @property
    def result_json(self) -> bytes:
        """The stored result of a run that is ``done``, as JSON.

        :raises ResultOmittedError: it is not in the log
        :raises DecryptionError: it cannot be decrypted
        """
        history = self.replay.history
        if history.result_locked is not None:
            raise history.result_locked.error(self.workflow_id)
        if history.result_omitted is not None:
            raise ResultOmittedError(self.workflow_id, history.result_omitted)
        if history.result_blob is not None:
            return self.blobs.get(history.result_blob)
        return history.result_json or b"null"

    @property
    def encloses_workflows(self) -> bool:
        """Whether a workflow that is called in one of its scopes is a step of this run."""
        return not self.detached

    @property
    def can_wait(self) -> bool:
        """Whether a call of ``pause`` can end it as paused."""
        return True

    @property
    def takes_events(self) -> bool:
        """Whether events may still be written: the run has not ended."""
        return self.root.state not in {COMPLETED, FAILED}

    @property
    def log_dir(self) -> Path | None:
        """Folder of its log; ``None`` where this process writes none."""
        return None if self.writer is None else self.writer.path.parent

    @property
    def log_failure(self) -> str | None:
        """Why events are queued in memory; ``None`` while the log can be written."""
        return None if self.writer is None else self.writer.failure

    def has(self, event: Event) -> bool:
        """Whether an event is in the log, or waits to be written."""
        return bool(event.seq) or (self.writer is not None and self.writer.has(event))

    def is_asked_for(self, record: StepHistory) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the code of the run has to ask for a step that an earlier execution recorded."""
        return True

    # -- refusals

    @property
    def refused(self) -> bool:
        """Whether a refusal was raised: from then on every call raises it."""
        return self.replay.refusal is not None

    @property
    def detail_lost(self) -> bool:
        """Whether a handler was refused a part of a recorded failure."""
        return isinstance(self.replay.refusal, FailureDetailError)

    def refuse(self, error: RefusalError) -> None:
        """Let every later call raise a refusal, unless one was raised before."""
        with self.lock:
            self.replay.refusal = self.replay.refusal or error

    def caused_by(self, error: BaseException, scope_id: str | None) -> list[str]:
        """The steps of a scope whose exception left it with ``error``.

        None if a detail of a failure was refused: that failure stays handled.
        """
        if self.detail_lost:
            return []
        return failures.caused_by(
            error, self.workflow_id, scope_id, is_from_outside=is_from_outside
        )

    # -- warnings

    def warn_once(self, text: str) -> bool:
        """Log a warning, once a run, through the logger ``tapps_otel``; return whether it was."""
        if text in self._warned:
            return False
        self._warned.add(text)
        report(_log.warning, "%s", text)
        return True

    def scope_name(self, scope: Scope) -> str:
        """Name a scope in a message."""
        own = f"run {self.workflow_id!r}"
        return own if scope.step_id is None else f"step {scope.step_id!r} of {own}"

    def is_detached(self) -> bool:
        """Whether steps are plain calls here; a forked child logs one warning of that."""
        if self.detached and not self.off:
            self.warn_once(
                f"run {self.workflow_id} belongs to the parent process: steps called in a forked "
                "child are plain calls, without a log"
            )
        return self.detached

    def check_plain(self, spec: Any) -> None:
        """Check that a step of this run can be a plain call where they all are.

        :raises LookupError: it cannot
        """

    # -- the current scope

    def enter_root(self) -> None:
        """Make the workflow the current scope; ordered calls come from this thread and task."""
        self.root.thread, self.root.task = get_ident(), running_task()
        before = current_scope.get()
        try:
            self._token = current_scope.set(self.root)
            if self.root.span is not None:
                self._span_token = self.root.span.attach()
        except BaseException:
            current_scope.set(before)
            raise

    def leave(self) -> None:
        """Undo :meth:`enter_root`; a second call does nothing."""
        if self._token is None:
            return
        if self.root.span is not None:
            self.root.span.detach(self._span_token)
        leave_scope(self._token)
        self._token = self.root.task = None  # a task keeps its exception, and that the run: a cycle

    # -- until it is closed

    def handle_sigterm(self) -> None:
        """Record SIGTERM as an interruption, until the run ends."""
        self._sigterm = SigtermHandler(self._note_sigterm)

    def _note_sigterm(self) -> None:
        self.terminated = True

    def close(self) -> None:
        """Release the scope, the log and the lease; a second call does nothing."""
        try:
            self.leave()
            note_closed(self.root)
            if self._sigterm is not None:
                self._sigterm.restore()
        finally:  # Ctrl-C may come between any two of these
            try:
                if self.writer is not None:
                    self.writer.close()
            finally:
                if self._lease is not None:
                    self._lease.release()

    def detach(self) -> None:
        """Give the run up in a forked child: it is the parent's, steps are plain calls here."""
        self.detached, self.write = True, write_nothing
        self.lock = threading.RLock()  # a thread of the parent may hold the old one
        if self._lease is not None:
            self._lease.detach()

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}, execution {self.execution}>"
