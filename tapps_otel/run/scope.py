"""Scopes: where steps are called from, and which attempts are open inside them.

The current scope is kept in a context variable: tasks and ``asyncio.to_thread`` inherit it, thread
pools get it through :func:`~tapps_otel.bind`.

Two protocols say what a scope needs from the layers above it: :class:`Recorder` from the run that
it belongs to, :class:`OpenAttempt` from the attempts inside it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from tapps_otel.otel import process_end  # noqa: F401 - before handlers that the program registers

if TYPE_CHECKING:
    from tapps_otel.clock import RunClock
    from tapps_otel.errors import Question, RefusalError
    from tapps_otel.log.event import Event
    from tapps_otel.otel.seam import LiveSpan, Tracing
    from tapps_otel.redact import Rules
    from tapps_otel.run.awaited_write import AwaitedWrite
    from tapps_otel.run.matching import Matcher
    from tapps_otel.run.policy import Policy

__all__ = [
    "CLOSING",
    "COMPLETED",
    "FAILED",
    "OPEN",
    "OpenAttempt",
    "Recorder",
    "Scope",
    "current_scope",
    "get_scope",
    "leave_scope",
    "paused_signal",
    "running_loop",
    "running_task",
    "set_scope",
]

OPEN: Final = "open"
CLOSING: Final = "closing"  # its code has returned or raised; what is open inside has not ended
COMPLETED: Final = "completed"
FAILED: Final = "failed"

current_scope: ContextVar[Scope | None] = ContextVar("tapps_otel_scope", default=None)
# Every step calls these; a method of an imported object would be bound anew for each call.
get_scope: Final = current_scope.get
set_scope: Final = current_scope.set
# Marks code in which `Paused` was raised: it must make no further calls.
paused_signal: ContextVar[object] = ContextVar("tapps_otel_paused_signal", default=None)


class Recorder(Protocol):
    """What scopes, attempts and calls need from the recorder of their run.

    :ivar root: the scope of the workflow itself
    :ivar clock: gives its events their times
    :ivar lock: guards the state of every scope of the run
    :ivar detached: this process does not execute the run: steps are plain calls
    :ivar captures_inputs: whether the inputs of steps are logged, not only their digests
    :ivar renamed: by the name of a module, the one by which the log knows its steps
    :ivar rules: what is redacted before it is logged or sent
    :ivar redacts_results: whether a result is not stored if redaction would alter it
    :ivar hides_values: whether a codec encrypts values
    :ivar tracing: makes its spans; ``None``: it has none
    """

    workflow_id: str
    execution: int
    trace_id: str
    root: Scope
    clock: RunClock
    lock: threading.RLock
    detached: bool
    captures_inputs: bool
    renamed: Mapping[str, str] | None
    rules: Rules
    redacts_results: bool
    hides_values: bool
    tracing: Tracing | None

    @property
    def encloses_workflows(self) -> bool:
        """Whether a workflow that is called in one of its scopes is a step of this run."""

    @property
    def refused(self) -> bool:
        """Whether a refusal was raised: from then on every call raises it."""

    def refuse(self, error: RefusalError) -> None:
        """Let every later call raise a refusal, unless one was raised before."""

    def pause_with(self, attempt: Scope, questions: tuple[Question, ...]) -> None:
        """Note that the run waits: for what an attempt asks, or the run that it called."""

    def is_paused_in(self, scope: Scope) -> bool:
        """Whether a call inside a scope waits, so that the scope cannot end otherwise."""

    def check_not_paused(self, scope: Scope) -> None:
        """Raise it again, if a call inside a scope waits."""

    @property
    def detail_lost(self) -> bool:
        """Whether a handler was refused a part of a recorded failure."""

    def caused_by(self, error: BaseException, scope_id: str | None) -> list[str]:
        """The steps of a scope whose exception left it with ``error``."""

    def is_detached(self) -> bool:
        """Whether steps are plain calls here, with a warning in a forked child."""

    def check_plain(self, spec: Any) -> None:
        """Check that a step can be a plain call here."""

    def enter(  # noqa: PLR0917 - as RunRecorder has it
        self,
        scope: Scope,
        spec: Any,
        digest: str | None,
        key: str | None,
        step_id: str | None = None,
        arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = ...,
        make: Any = ...,
    ) -> Any:
        """Decide what a call does: a new attempt, an outcome from the log, or ``None``."""

    def write(self, event: Event, /, *, sync: bool = False) -> int | None:
        """Write an event; return its seq, or ``None`` where it is not in the log."""

    def write_soon(self, event: Event, scope: Scope) -> AwaitedWrite | None:
        """Write an event whose sync a task awaits; ``None``: it is not written yet."""

    def write_ahead(self, event: Event) -> AwaitedWrite | None:
        """Write an event that others share a sync with; ``None``: it is not written."""

    def has(self, event: Event) -> bool:
        """Whether an event is in the log, or waits to be written."""

    def put_blob(self, data: bytes) -> str:
        """Store what is too large for a line; return its name."""

    def store_result(self, event: Event, data: bytes, what: str, policy: Policy = ..., /) -> None:
        """Put a result into its event, unless it is a secret and those are not stored."""

    def store_inputs(self, event: Event, data: bytes) -> None:
        """Put captured inputs into their event, or into a blob if they are large."""

    def start_span(self, tracing: Tracing, attempt: Any, event: Event) -> None:
        """Start the span of an attempt, and put its ids into the start event."""

    def remember(
        self, attempt: Any, event: Event, seq: int | None, *, forget: bool = False
    ) -> None:
        """Keep the history of a step up to date, where a later call may ask for it."""

    def annotate_step(
        self,
        step_id: str,
        name: str,
        attributes: Mapping[str, Any],
        *,
        attempt: int | None = None,
    ) -> None:
        """Write an annotation about a step that has ended."""

    def await_digests(self, digests: Iterable[OpenAttempt]) -> None:
        """Let the run end only after these digests, if it waits for any."""

    def report_leftovers(self, scope: Scope) -> None:
        """Report, when a scope completes, what of its past was not used."""

    def report_changed_arguments(
        self, scope: Scope, step: str, names: list[str], *, failing: bool = False
    ) -> None:
        """Report that a step changed its arguments, or refuse it."""

    def warn_once(self, text: str) -> bool:
        """Log a warning, once a run; return whether it was."""

    def warn_of_plain_call(self, scope: Scope, name: str) -> None:
        """Log a warning that a step runs without a log, because its scope has completed."""

    def scope_name(self, scope: Scope) -> str:
        """Name a scope in a message."""


class OpenAttempt(Protocol):
    """What a scope needs from an attempt that is open inside it.

    :ivar by_hand: only its caller can end it: it has no code to wait for
    """

    thread: int
    task: asyncio.Task[Any] | None
    by_hand: bool

    @property
    def has_started(self) -> bool:
        """Whether its start is in the log, or waits to be written."""

    def begin_end(self) -> bool | None:
        """Refuse further steps inside; return whether any is open, ``None`` if it has ended."""

    def abandon(self, error: BaseException | None = None) -> None:
        """End it in place of its code, which cannot end it."""

    def abandon_after(self, error: BaseException | None, *, blocking: bool) -> None:
        """Abandon it once what is open inside has ended."""


# A struct, because its constructor is in C: every step makes one.
class Scope(Struct, kw_only=True, eq=False, weakref=True):
    """The workflow, or an attempt of a step.

    :ivar step_id: of the step; ``None`` for the workflow
    :ivar matcher: the records that calls of this scope may take; ``None`` before the first call
    :ivar counts: number of ordered calls so far, by name
    :ivar open: attempts inside that have not ended
    :ivar changed: steps whose outcome came from the log although their code has changed
    :ivar receivers: by step name, the object whose method it was where nothing tells it apart
    :ivar public: the object that users get for it, once they have asked for it
    """

    run: Recorder
    step_id: str | None
    thread: int
    task: asyncio.Task[Any] | None
    state: str = OPEN
    span: LiveSpan | None = None
    span_id: str = ""
    matcher: Matcher | None = None
    counts: dict[str, int] | None = None
    open: set[OpenAttempt] | None = None
    changed: dict[str, None] | None = None
    receivers: dict[str, object] | None = None
    public: Any = None
    _waiter: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.step_id!r} of {self.run!r}: {self.state}>"

    @property
    def rules(self) -> Rules:
        """What is redacted in its events and on its span."""
        return self.run.rules

    def order_of_call(self, name: str, thread: int, task: asyncio.Task[Any] | None) -> int | None:
        """Count a call made from the scope's own task and thread; ``None`` for any other."""
        if thread != self.thread or task is not self.task:
            return None
        counts = self.counts
        if counts is None:
            counts = self.counts = {}
        order = counts[name] = counts.get(name, 0) + 1
        return order

    def enclose(self, attempt: OpenAttempt) -> None:
        """Note that ``attempt`` is open inside. The caller holds the run's lock."""
        if self.open is None:
            self.open = set()
        self.open.add(attempt)

    def release(self, attempt: OpenAttempt) -> None:
        """Note that ``attempt`` has ended; a second call does nothing."""
        # A task keeps its exception, whose traceback may refer to the attempt: a cycle.
        attempt.task = None
        inside = self.open
        if inside is not None:
            inside.discard(attempt)
            # Without a lock: whoever waits has set this before it looks whether any is open.
            waiter = self._waiter
            if waiter is not None and not inside:
                waiter()

    def drain(self, error: BaseException | None = None) -> None:
        """Wait until nothing is open inside; for code without an event loop.

        Tasks are cancelled, threads are waited for.

        :param error: ends what cannot end by itself, if the scope ends by it
        """
        self._cancel_tasks()
        while self._begin_wait(error, blocking=True):
            done = threading.Event()
            self._waiter = done.set
            if not self.open:
                break
            try:
                done.wait()
            except BaseException as interrupt:  # Ctrl-C: do not wait for a busy thread
                self.give_up(interrupt)
                raise
        self._waiter = None

    async def drain_async(self, error: BaseException | None = None) -> None:
        """Wait as :meth:`drain` does, without blocking the event loop.

        A cancellation is raised only after the wait.
        """
        cancelled: asyncio.CancelledError | None = None
        loop, watched = asyncio.get_running_loop(), set[OpenAttempt]()
        self._cancel_tasks()
        while self._begin_wait(error, blocking=False):
            done = asyncio.Event()
            self._waiter = partial(loop.call_soon_threadsafe, done.set)
            self._watch_tasks(loop, watched)
            if not self.open:
                break
            try:
                await done.wait()
            except asyncio.CancelledError as again:
                cancelled = again
        self._waiter = None
        if cancelled is not None:
            raise cancelled

    def _watch_tasks(self, loop: asyncio.AbstractEventLoop, watched: set[OpenAttempt]) -> None:
        """Wake the wait when a task is done whose attempt is open: its code did not run.

        :param watched: attempts whose tasks are watched already
        """
        for attempt in list(self.open or ()):
            task = attempt.task
            if task is not None and task.get_loop() is loop and attempt not in watched:
                watched.add(attempt)
                task.add_done_callback(partial(self._wake_for, attempt))

    def _wake_for(self, attempt: OpenAttempt, _: object) -> None:
        if attempt in (self.open or ()) and self._waiter is not None:
            self._waiter()

    def _cancel_tasks(self) -> None:
        if self.run.detached:
            return
        own, loop = running_task(), running_loop()
        for attempt in list(self.open or ()):
            task = attempt.task
            if task is not None and task is not own:
                _cancel(task, loop)

    def _begin_wait(self, error: BaseException | None, *, blocking: bool) -> bool:
        """Abandon what cannot end by itself; return whether anything is left to wait for.

        That is what was begun by hand, what has lost its task, and what has code that cannot run
        before the code that waits here returns.
        """
        if self.run.detached:  # a forked child: the busy threads are in the parent
            return False
        own, thread = running_task(), threading.get_ident()
        for attempt in list(self.open or ()):
            task = attempt.task
            is_here = attempt.thread == thread and (blocking or task is None or task is own)
            if is_here or (task is not None and _is_dead(task)):
                attempt.begin_end()
                attempt.abandon_after(error, blocking=blocking)
            elif attempt.by_hand and attempt.begin_end() is not None and attempt.has_started:
                # Where another thread is starting it, that will see that it has to end.
                attempt.abandon_after(error, blocking=blocking)
        return bool(self.open)

    def give_up(self, error: BaseException) -> None:
        """End what is open inside without waiting: how its code will end is not known."""
        for attempt in list(self.open or ()):
            attempt.abandon(error)


def _is_dead(task: asyncio.Task[Any]) -> bool:
    return task.done() or task.get_loop().is_closed()


def _cancel(task: asyncio.Task[Any], running: asyncio.AbstractEventLoop | None) -> None:
    loop = task.get_loop()
    if loop is running:
        task.cancel()
    elif loop.is_running():
        loop.call_soon_threadsafe(task.cancel)


def leave_scope(token: Token[Scope | None]) -> None:
    """Undo a ``current_scope.set``."""
    # A generator (a fixture, a dependency) may end in another context than it began in: there is
    # nothing to undo there, and its end must still be written. Ctrl-C may come just after the undo.
    try:  # noqa: SIM105 - every step comes here, and `suppress` takes four times as long
        current_scope.reset(token)
    except (ValueError, RuntimeError):
        pass


def running_task() -> asyncio.Task[Any] | None:
    """The asyncio task that runs in this thread, if one does."""
    loop = running_loop()
    return None if loop is None else asyncio.current_task(loop)


# The public get_running_loop() raises where there is no loop, which most steps would pay for: 3 %
# of an unsynced step. This one returns None, and is in the `__all__` of its module.
running_loop = asyncio._get_running_loop  # noqa: SLF001
