"""One execution of a workflow by a third-party executor, from its call to its return.

Everything here is guarded: a failure is logged, and never raised into the executor, whose results
and exceptions pass unchanged. The one exception is ``on_log_failure="stop"``, by which users ask
for no step to run unlogged.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Self

from tapps_otel import clock, settings
from tapps_otel.errors import SettingsError
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.log.home import home_of
from tapps_otel.log.store import Store
from tapps_otel.names import new_workflow_id
from tapps_otel.run.codecs.native import to_json
from tapps_otel.run.external_attempt import (
    ExternalAttemptRecorder,
    ExternalStep,
    checked_attributes,
)
from tapps_otel.run.external_start import ExternalWorkflow, resume_run, start_run, start_turn
from tapps_otel.run.scope import current_scope
from tapps_otel.settings_types import DEFAULT_LOG_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tapps_otel.instrumentation.method_call import MethodCall
    from tapps_otel.instrumentation.spec import Adapter
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = [
    "IN_PROGRESS",
    "Execution",
    "current_attempt",
    "current_execution",
    "describe_step",
    "describe_workflow",
    "execution_of",
    "fail_step",
    "finish_step",
    "guarded_end",
    "is_enabled",
    "open_run",
    "step_spec",
    "store_under",
]

_log = logging.getLogger("tapps_otel")
_current: ContextVar[Execution | None] = ContextVar("tapps_otel_execution", default=None)
_logged: set[str] = set()
_LEAVING: Final = guarded("a run was not left")
_ATTRIBUTES: Final = guarded("the attributes of a step are not logged")


def is_enabled() -> bool:
    """Whether runs that start now are to be logged."""
    try:
        return settings.current().enabled
    except SettingsError as error:
        if str(error) not in _logged:
            _logged.add(str(error))
            _log.error("nothing is logged: %s", error)
        return False


def current_execution() -> Execution | None:
    """The execution that the calling code is part of, if any."""
    return _current.get()


def current_attempt() -> ExternalAttemptRecorder | None:
    """The attempt of an executor's step that the calling code is part of, if any."""
    scope = current_scope.get()
    return scope if isinstance(scope, ExternalAttemptRecorder) else None


class Execution:
    """A call of an executor that executes a workflow. Entered for as long as the call takes.

    :ivar executor: the object whose method was called
    :ivar opened: whether :meth:`open` was called, even if it failed
    :ivar run: ``None`` before it is opened, and where it has no log
    :ivar left: whether it has ended; code that it left running may still begin steps
    """

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.opened = self.left = False
        self.run: ExternalRunRecorder | None = None
        self._token: Any = None
        self._passed_on = False

    @property
    def is_innermost(self) -> bool:
        """Whether the calling code belongs to this execution, and to none of its steps."""
        return not self.opened or (self.run is not None and current_scope.get() is self.run.root)

    def __enter__(self) -> Self:
        self._passed_on = False
        self.enter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()
        if not self._passed_on:
            self.close()

    def pass_on(self) -> None:
        """Keep the run open after this block: it is entered again for the rest of the work."""
        self._passed_on = True

    def current(self) -> AbstractContextManager[None]:
        """A context for a part of the work, after which the run is still open."""
        return _Part(self)

    def enter(self) -> None:
        """Make it current."""
        self.left = False
        self._token = _current.set(self)
        if self.run is not None:
            self.run.enter_root()

    def leave(self) -> None:
        """Undo :meth:`enter`."""
        with _LEAVING:
            if self.run is not None:
                self.run.leave()
            try:  # noqa: SIM105 - `suppress` takes four times as long
                _current.reset(self._token)
            except (ValueError, RuntimeError):
                pass  # an abandoned generator ends in a context of its own: nothing to undo there

    def close(self) -> None:
        """End the execution; a run that has not ended can be resumed."""
        self.left = True
        with guarded("a run was not closed"):
            if self.run is not None:
                self.run.close()

    def open(self, opening: Callable[[], ExternalRunRecorder]) -> None:
        """Open the run and make it current; if that fails, log an error and continue without."""
        self.opened = True
        with guarded("this run continues without a log"):
            self.adopt(opening())

    def adopt(self, run: ExternalRunRecorder) -> None:
        """Make a run current that is open already."""
        self.opened = True
        self.run = run
        run.enter_root()

    # -- steps

    def begin_step(self, adapter: Adapter, call: MethodCall) -> ExternalAttemptRecorder | None:
        """Write that the step of this call begins, as :meth:`begin_step_by` does."""
        return self.begin_step_by(partial(_begin_step, adapter, call))

    def begin_step_by(
        self, begin: Callable[[ExternalRunRecorder], ExternalAttemptRecorder]
    ) -> ExternalAttemptRecorder | None:
        """Write that a step begins; return ``None`` if it continues unlogged.

        :param begin: begins it in the run
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        run = self.run
        if run is None or run.is_detached():
            return None
        try:
            return begin(run)
        except Exception:  # only now: to enter a guard would cost each step more
            with guarded("a step continues without a log", refuses=run.stops):
                raise
        return None

    # -- the end

    def end(self, adapter: Adapter, call: MethodCall) -> None:
        """End the run with the outcome that the returned call has."""
        with self._leaving() as run:
            if run is not None:
                outcome = adapter.outcome(call)
                question = adapter.question(call) if outcome == "paused" else None
                run.end(outcome, adapter.error(call), question=_text(question))

    def end_with_error(
        self, error: BaseException, adapter: Adapter | None = None, call: MethodCall | None = None
    ) -> None:
        """End the run with the exception that the executor raised.

        :param adapter: knows exceptions that mean something else, with ``call``
        """
        with self._leaving() as run:
            if run is None:
                return
            word = question = None
            if adapter is not None and call is not None:
                with guarded("how a run ended is told by its exception"), _failed(call, error):
                    word = adapter.raised(call)
                    question = adapter.question(call) if word == "paused" else None
            if word is None:
                run.end_by(error)
            else:
                run.end(str(word), error, question=_text(question))

    @contextmanager
    def _leaving(self) -> Iterator[ExternalRunRecorder | None]:
        with guarded("the end of a run is not logged"):
            if self.run is not None:
                self.run.leave()
            yield self.run


class _Part:
    """A part of an execution's work; a class, because a generator would cost each step more."""

    __slots__ = ("_execution",)

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def __enter__(self) -> None:
        self._execution.enter()

    def __exit__(self, *exc: object) -> None:
        self._execution.leave()


class _InProgress:
    """The executions in progress, by executor: a step in a thread of a pool finds its run here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_executor: dict[int, list[Execution]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_executor)

    @contextmanager
    def track(self, execution: Execution) -> Iterator[None]:
        """Have this execution in progress meanwhile."""
        key = id(execution.executor)  # it is alive, because its method is being called
        with self._lock:
            self._by_executor.setdefault(key, []).append(execution)
        try:
            yield
        finally:
            with self._lock:
                self._by_executor[key].remove(execution)
                if not self._by_executor[key]:
                    del self._by_executor[key]

    def of(self, executor: object) -> list[Execution]:
        """The executions of this executor."""
        with self._lock:
            return list(self._by_executor.get(id(executor), ()))


IN_PROGRESS: Final = _InProgress()


def execution_of(runner: Callable[[], object]) -> Execution | None:
    """The execution that a step belongs to; ``None`` if it cannot be told.

    It is that of the calling code. In a thread of a pool there is none, and what an execution left
    running may work for a later one: there it is the only one of the executor that is in progress.

    :param runner: returns the executor
    """
    current = current_execution()
    if (current is not None and not current.left) or not IN_PROGRESS:
        return current
    found = IN_PROGRESS.of(runner())
    if not found:
        return current
    return found[0] if len(found) == 1 else None


# -- what an adapter reads


def open_run(adapter: Adapter, call: MethodCall) -> ExternalRunRecorder:
    """Start the run of this call, or resume it.

    :raises RunBusyError: the run is in progress in another process
    :raises LogError: it cannot be logged
    """
    workflow = describe_workflow(adapter, call)
    store, config = store_under(adapter.root(call)), settings.current()
    thread = adapter.thread(call)
    if thread is not None:
        return start_turn(store, str(thread), workflow, config, partial(adapter.continues, call))
    workflow_id = adapter.run_id(call)
    if workflow_id is None:
        workflow_id = new_workflow_id(workflow.name, clock.timestamp(clock.time_ns()))
    opening = resume_run if adapter.resumes(call) else start_run
    return opening(store, str(workflow_id), workflow, config)


def store_under(root: Path | None) -> Store:
    """The log folder: the configured one, else the default one under the executor's root."""
    config = settings.current()
    folder = config.log_dir
    if root is not None and folder == DEFAULT_LOG_DIR:
        folder = root / folder
    return Store(folder.absolute(), home_of(config))


def describe_workflow(adapter: Adapter, call: MethodCall) -> ExternalWorkflow:
    """What the log tells of the workflow that this call executes."""
    about = {"executor": adapter.executor, **adapter.about(call)}
    name = str(adapter.run_name(call) or adapter.executor)
    return ExternalWorkflow(name, about, to_json(dict(adapter.inputs(call))))


def _begin_step(
    adapter: Adapter, call: MethodCall, run: ExternalRunRecorder
) -> ExternalAttemptRecorder:
    step_id, step = describe_step(adapter, call)
    return run.begin_step(step_id, step, attributes=_attributes(adapter, call))


def describe_step(adapter: Adapter, call: MethodCall) -> tuple[str, ExternalStep]:
    """The id and the description of the step that this call executes."""
    step_id, fields = str(adapter.step_id(call)), adapter.fields(call)
    return step_id, step_spec(
        _text(adapter.step_name(call)) or step_id,
        _text(adapter.agent(call)),
        _text(adapter.action(call)),
        None if fields is None else sha256(to_json(fields)).hexdigest()[:16],
    )


@lru_cache(maxsize=1024)
def step_spec(
    name: str,
    agent: str | None = None,
    action: str | None = None,
    definition: str | None = None,
) -> ExternalStep:
    """A step's description; the calls of a step share one."""
    return ExternalStep(name, agent=agent, action=action, definition=definition)


def _attributes(adapter: Adapter, call: MethodCall) -> dict[str, Any] | None:
    """What a step begins with; nothing, if that is no JSON or too much of it."""
    with _ATTRIBUTES:
        return checked_attributes(adapter.attributes(call))
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@contextmanager
def _failed(call: MethodCall, error: BaseException) -> Iterator[None]:
    """Let readers see what a call raised. It is not kept: it may refer to the call."""
    call.error = error
    try:
        yield
    finally:
        call.error = None


class guarded_end(guarded):  # noqa: N801 - as that
    """Guard the end of a step: if it cannot be written, the run does not wait for it."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: ExternalAttemptRecorder) -> None:
        super().__init__("the end of a step is not logged")
        self._attempt = attempt

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self._attempt.release_self()
        return super().__exit__(kind, error, trace)


def finish_step(
    adapter: Adapter, call: MethodCall, attempt: ExternalAttemptRecorder, result: object = None
) -> None:
    """Write the outcome of a step that has returned, and whose end has begun.

    :param result: what to keep of its result, JSON-native
    """
    word: str | None = None
    reason: str | None = None
    question: str | None = None
    artifacts: list[dict[str, Any]] = []
    with guarded("the outcome or the artifacts of a step are not logged"):
        reason, word = _text(adapter.skipped(call)), _text(adapter.status(call))
        question = _text(adapter.question(call)) if word == "paused" else None
        artifacts = attempt.summarize_artifacts(adapter.artifacts(call))
    with guarded_end(attempt):
        word = word or ("completed" if reason is None else "skipped")
        attempt.end_drained_as(word, reason, question=question, result=result, artifacts=artifacts)


def fail_step(
    adapter: Adapter, call: MethodCall, attempt: ExternalAttemptRecorder, error: BaseException
) -> None:
    """Write the outcome of a step that has raised."""
    word = question = None
    with guarded("the outcome of a step is told by its exception"), _failed(call, error):
        word = _text(adapter.status(call))
        question = _text(adapter.question(call)) if word == "paused" else None
    with guarded_end(attempt):
        if word is None:
            attempt.fail(error)
        else:
            attempt.end_as(word, error, question=question)
