"""One carrying out of a workflow by an executor of somebody else's, from its call to its return.

Everything here is guarded. A failure of ours is logged and never raised into the executor, whose
results and exceptions pass unchanged; the one exception is ``on_log_failure="stop"``, by which a
user asks that no step runs unlogged.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Self

from tapps_otel import clock, settings
from tapps_otel.errors import LogWriteError, SettingsError
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.log.artifacts import summarize
from tapps_otel.log.store import Store
from tapps_otel.names import new_workflow_id
from tapps_otel.run.external_run import (
    ExternalAttempt,
    ExternalRun,
    ExternalStep,
    ExternalWorkflow,
    resume_run,
    start_run,
)
from tapps_otel.run.scope import current_scope
from tapps_otel.run.values import to_json
from tapps_otel.settings import DEFAULT_LOG_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tapps_otel.instrumentation.spec import Reading, Seen

__all__ = ["Carrying", "attempt_here", "carried_here", "ending", "is_enabled", "store_under"]

_log = logging.getLogger("tapps_otel")
_carried: ContextVar[Carrying | None] = ContextVar("tapps_otel_carrying", default=None)
_said: set[str] = set()


def is_enabled() -> bool:
    """Whether runs that begin now are to be logged."""
    try:
        return settings.current().enabled
    except SettingsError as error:
        if str(error) not in _said:
            _said.add(str(error))
            _log.error("nothing is logged: %s", error)
        return False


def carried_here() -> Carrying | None:
    """What the code that asks is carried out by, if anything."""
    return _carried.get()


def attempt_here() -> ExternalAttempt | None:
    """The executor's step whose code asks."""
    scope = current_scope.get()
    return scope if isinstance(scope, ExternalAttempt) else None


class Carrying:
    """An executor's call that carries a workflow out. Entered for as long as that takes.

    :ivar executor: the object whose method was called
    :ivar opened: whether it was tried to open the run
    :ivar run: ``None`` before that, and where the run goes on without a log
    """

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.opened = False
        self.run: ExternalRun | None = None
        self._token: Any = None

    @property
    def encloses(self) -> bool:
        """Whether a call made here belongs to this carrying out, and is none of its steps'."""
        return not self.opened or (self.run is not None and current_scope.get() is self.run.root)

    def __enter__(self) -> Self:
        self._token = _carried.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        with guarded("leaving a run"):
            _carried.reset(self._token)
            if self.run is not None:
                self.run.close()

    def open(self, opening: Callable[[], ExternalRun]) -> None:
        """Open the run and make it current; if that fails it goes on without a log, loudly."""
        self.opened = True
        with guarded("this run goes on without a log"):
            self.take(opening())

    def take(self, run: ExternalRun) -> None:
        """Make a run that is open already the one that is carried out."""
        self.opened = True
        self.run = run
        run.enter_root()

    def hand_on(self) -> None:
        """Leave the run open, for another to :meth:`take`."""
        if self.run is not None:
            self.run.leave()
            self.run = None

    # -- steps

    def begin(self, reading: Reading, seen: Seen) -> ExternalAttempt | None:
        """Write that the step of this call begins; ``None`` if it goes on unlogged.

        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        run = self.run
        if run is None or run.is_detached():
            return None
        refused: LogWriteError | None = None
        with guarded("a step goes on without a log"):
            try:
                return run.begin_step(*call_of(reading, seen))
            except LogWriteError as error:
                if not run.stops:
                    raise
                refused = error
        if refused is not None:
            raise refused
        return None

    # -- the end

    def end(self, reading: Reading, seen: Seen) -> None:
        """End the run as its executor, which has returned, says that it has ended."""
        if self.run is not None:
            with guarded("the end of a run"):
                self.run.leave()
                self.run.end(reading.outcome(seen), reading.error(seen))

    async def end_async(self, reading: Reading, seen: Seen) -> None:
        """The same from a coroutine."""
        if self.run is not None:
            with guarded("the end of a run"):
                self.run.leave()
                await self.run.end_async(reading.outcome(seen), reading.error(seen))

    def end_by(self, error: BaseException) -> None:
        """End the run by what the executor raised."""
        if self.run is not None:
            with guarded("the end of a run"):
                self.run.leave()
                self.run.end_by(error)

    async def end_by_async(self, error: BaseException) -> None:
        """The same from a coroutine."""
        if self.run is not None:
            with guarded("the end of a run"):
                self.run.leave()
                await self.run.end_by_async(error)


class _Active:
    """What is carried out at this moment, by executor: for steps in threads of a pool."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_executor: dict[int, list[Carrying]] = {}

    @contextmanager
    def busy(self, carrying: Carrying) -> Iterator[None]:
        """Note that an executor is busy with this, meanwhile."""
        key = id(carrying.executor)  # which is alive, for its method is being called
        with self._lock:
            self._by_executor.setdefault(key, []).append(carrying)
        try:
            yield
        finally:
            with self._lock:
                self._by_executor[key].remove(carrying)
                if not self._by_executor[key]:
                    del self._by_executor[key]

    def of(self, executor: object) -> Carrying | None:
        """The one thing that this executor carries out; ``None`` for none, or several."""
        with self._lock:
            busy = self._by_executor.get(id(executor), [])
            return busy[0] if len(busy) == 1 else None


ACTIVE: Final = _Active()


# -- what a reading says


def open_run(reading: Reading, seen: Seen) -> ExternalRun:
    """Begin the run of this call, or go on with it.

    :raises RunBusyError: another process carries it on
    :raises LogError: it cannot be logged
    """
    workflow = workflow_of(reading, seen)
    store, config = store_under(reading.root(seen)), settings.current()
    workflow_id = reading.run_id(seen)
    if workflow_id is None:
        workflow_id = new_workflow_id(workflow.name, clock.timestamp(clock.time_ns()))
    opening = resume_run if reading.resumes(seen) else start_run
    return opening(store, str(workflow_id), workflow, config)


def store_under(root: Path | None) -> Store:
    """The folder of logs: the configured one, else the usual one under the executor's root."""
    folder = settings.current().log_dir
    if root is not None and folder == DEFAULT_LOG_DIR:
        folder = root / folder
    return Store(folder.absolute())


def workflow_of(reading: Reading, seen: Seen) -> ExternalWorkflow:
    """What the log says of this call's workflow."""
    about = {"executor": reading.executor, **reading.about(seen)}
    name = str(reading.run_name(seen) or reading.executor)
    return ExternalWorkflow(name, about, to_json(dict(reading.inputs(seen))))


def call_of(reading: Reading, seen: Seen) -> tuple[str, ExternalStep]:
    """Id and description of the step that this call carries out."""
    step_id, fields = str(reading.step_id(seen)), reading.fields(seen)
    agent, action = reading.agent(seen), reading.action(seen)
    return step_id, ExternalStep(
        step_id,
        agent=None if agent is None else str(agent),
        action=None if action is None else str(action),
        definition=None if fields is None else sha256(to_json(fields)).hexdigest()[:16],
    )


@contextmanager
def ending(attempt: ExternalAttempt) -> Iterator[None]:
    """Guard the end of a step: if it cannot be written, the end of the run does not wait for it."""
    try:
        yield
    except BaseException:
        attempt.release_self()
        with guarded("the end of a step"):
            raise


def finish(reading: Reading, seen: Seen, attempt: ExternalAttempt, result: object = None) -> None:
    """Write how a step ended that has returned; what is open inside has ended before.

    :param result: what is to be kept of it, JSON-native
    """
    skipped: str | None = None
    artifacts: list[dict[str, Any]] = []
    with guarded("what a step has made is not logged"):
        skipped = reading.skipped(seen)
        artifacts = summarize(reading.artifacts(seen))
    with ending(attempt):
        if skipped is not None:
            attempt.skip_drained(str(skipped), None)
        else:
            attempt.finish_drained(result, artifacts)
