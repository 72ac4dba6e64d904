"""What users get of runs and attempts: thin classes over the recorders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from tapps_otel.errors import WorkflowInputError
from tapps_otel.run.codecs.canonical import digest
from tapps_otel.run.codecs.native import check_text, to_json
from tapps_otel.run.scope import OPEN
from tapps_otel.run.step import Step
from tapps_otel.run.step_spec import Skipped, StepSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.run.attempt import AttemptRecorder
    from tapps_otel.run.recorder import RunRecorder

__all__ = ["Attempt", "Run", "public_attempt", "public_run"]

R = TypeVar("R")


class Run:
    """One execution of a workflow, by this process.

    :meth:`open` starts or resumes it; use it as a context manager::

        with Run.open("build", workflow_id="b1") as run:
            out = run.call("compile", compile_all, src, agent="cc")

    An exception that leaves the block ends the run as failed (or cancelled, or interrupted);
    opening it again under its id resumes it. For a run that has completed, the log answers.
    """

    __slots__ = ("__weakref__", "_recorder")

    def __init__(self, recorder: RunRecorder) -> None:
        self._recorder = recorder

    @classmethod
    def open(
        cls,
        name: str,
        *,
        workflow_id: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        log_dir: Path | str | None = None,
    ) -> Run:
        """Start a run, or resume the run of that id.

        :param name: of its workflow
        :param inputs: JSON-native; stored, and compared when the run is opened again
        :raises RunBusyError: another process executes it
        :raises RunConflictError: the id belongs to another workflow, or to other inputs
        :raises RunPausedError: it waits for an answer
        :raises WorkflowInputError: the inputs cannot be stored
        :raises LogDamagedError: its log was changed
        """
        from tapps_otel.run.opening import open_run  # heavy: not before the first run

        try:
            data = to_json(dict(inputs or {}))
        except TypeError as error:
            msg = f"inputs of {name!r} cannot be stored: {error}"
            raise WorkflowInputError(msg, str(error).partition(":")[0]) from None
        recorder = open_run(name, workflow_id=workflow_id, inputs=data, log_dir=log_dir)
        try:
            return public_run(recorder)
        except BaseException:  # Ctrl-C
            recorder.close()
            raise

    @property
    def workflow_id(self) -> str:
        """Names the run and its log."""
        return self._recorder.workflow_id

    @property
    def name(self) -> str:
        """Name of its workflow."""
        return self._recorder.name

    @property
    def execution(self) -> int:
        """1, 2, ...: which of the run's executions this is."""
        return self._recorder.execution

    @property
    def trace_id(self) -> str:
        """OpenTelemetry trace of the run, 32 hex digits."""
        return self._recorder.trace_id

    @property
    def done(self) -> bool:
        """Whether the run was complete when it was opened: nothing more is written."""
        return self._recorder.done

    @property
    def result(self) -> Any:
        """The stored result of a run that is ``done``, as plain JSON values."""
        return self._recorder.result

    @property
    def log_dir(self) -> Path | None:
        """Folder of its log; ``None`` where this process writes none."""
        return self._recorder.log_dir

    @property
    def log_failure(self) -> str | None:
        """Why events are queued in memory; ``None`` while the log can be written."""
        return self._recorder.log_failure

    def call(
        self,
        name: str,
        fn: Callable[..., R],
        /,
        *args: Any,
        agent: str | None = None,
        action: str | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> R:
        """Call ``fn`` as a step of the current scope; the log answers if it has the result.

        Of a method's object only a value (a dataclass, a pydantic or attrs model, or what has a
        ``__tapps_key__()``) tells one call from another.

        :raises StepInputError: a second object without a value has calls of this name: on resume
            one could get the results of the other
        :raises StepResultError: the result cannot be stored
        """
        step = _step(fn, name, agent, action, key)
        return cast("R", step.call_in(self._recorder, args, kwargs))

    async def acall(
        self,
        name: str,
        fn: Callable[..., Awaitable[R]],
        /,
        *args: Any,
        agent: str | None = None,
        action: str | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> R:
        """Call a coroutine function as a step, as :meth:`call` does.

        :raises StepResultError: the result cannot be stored
        """
        step = _step(fn, name, agent, action, key)
        return cast("R", await step.call_in(self._recorder, args, kwargs))

    def begin(
        self,
        name: str,
        *,
        step_id: str | None = None,
        inputs: Any = None,
        agent: str | None = None,
        action: str | None = None,
        key: str | None = None,
    ) -> Attempt:
        """Begin a step by hand: end it with ``finish``, ``fail`` or ``skip``.

        As a context manager the attempt is the current scope, and ends as its block does. If the
        log has its outcome, ``done`` is set and nothing is written.

        :param step_id: its place, where the executor has names of its own: it is matched by that
        :param inputs: JSON-native; they tell one call of a name from another
        """
        spec = StepSpec(name, agent=agent, action=action)
        found = None if inputs is None else digest(inputs)
        return public_attempt(self._recorder.begin(spec, found, key, step_id))

    def annotate(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Write an annotation into the log and onto the run's span.

        :raises TypeError: ``name`` is not a string
        """
        self._recorder.annotate(name, attributes)

    def close(self) -> None:
        """Release the log and the lease of a run that is not ended: it can be resumed."""
        self._recorder.close()

    def __enter__(self) -> Self:
        self._recorder.enter_root()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recorder.ending.exit(error)

    async def __aenter__(self) -> Self:
        self._recorder.enter_root()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._recorder.ending.exit_async(error)

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id!r}, execution {self.execution}>"


class Attempt:
    """One try of a step: what ``current_step()`` and :meth:`Run.begin` return."""

    __slots__ = ("__weakref__", "_current", "_recorder")

    def __init__(self, recorder: AttemptRecorder) -> None:
        self._recorder = recorder
        self._current: AbstractContextManager[None] | None = None

    @property
    def step_id(self) -> str:
        """The step's place in the run, as ``outer/draft#2``."""
        return self._recorder.step_id

    @property
    def number(self) -> int:
        """1, 2, ...: which of the step's attempts this is."""
        return self._recorder.number

    @property
    def done(self) -> bool:
        """Whether the step has its outcome: from the log, or since ``finish``."""
        return self._recorder.done

    @property
    def result(self) -> Any:
        """The outcome, once there is one."""
        return self._recorder.result

    @property
    def idempotency_key(self) -> str:
        """64 hex digits, equal in every attempt and execution of this step.

        For services that take such a key, so that a step that runs again is not charged twice.
        """
        return self._recorder.idempotency_key

    def artifact(self, path: Path | str, *, media_type: str | None = None) -> None:
        """Note a file that the step has made: the log gets its name, size and SHA-256.

        Call it once the file is written. The log never has its content. One above 1 MiB is hashed
        in a thread after the step has ended, and the run's end waits for that. What cannot be read
        (a missing file, a FIFO, a link) causes a warning, and its entry has the reason.

        :param path: of a file, or of a folder, which is counted and not hashed
        :param media_type: by default, what the name's ending means
        :raises TypeError: ``path`` is not a path, or ``media_type`` is not a string
        """
        if media_type is not None:
            check_text(media_type, "the media type of an artifact")
        self._recorder.add_artifact(Path(path), media_type)

    def finish(self, result: Any = None, artifacts: Iterable[Artifact] = ()) -> None:
        """End the step with its result.

        :param artifacts: files that it made, by their paths (they are hashed now), or summaries:
            ``{"name", "path", "sha256", "bytes", "media_type"}``
        :raises StepResultError: the result cannot be stored; the step has failed then
        """
        self._recorder.finish(result, artifacts)

    def fail(self, error: BaseException) -> None:
        """End the step by an exception, which becomes its ``error`` in the log."""
        self._recorder.fail(error)

    def skip(self, reason: str, result: Any = None) -> None:
        """End the step as skipped; on resume it stays skipped, with this result.

        :raises StepResultError: the result cannot be stored; the step has failed then
        :raises TypeError: ``reason`` is not a string
        """
        self._recorder.skip(reason, result)

    def current(self) -> AbstractContextManager[None]:
        """A context in which this is the current step; leaving it does not end the step."""
        return self._recorder.current()

    def __enter__(self) -> Self:
        self._current = self._recorder.current()
        self._current.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._current is not None:
            self._current.__exit__(kind, error, trace)
        if self._recorder.state is not OPEN:
            return False
        if isinstance(error, Skipped):
            self.skip(error.reason, error.result)
            return True
        if error is None:
            self.finish()
        else:
            self.fail(error)
        return False

    def __repr__(self) -> str:
        return f"<Attempt {self.number} of {self.step_id!r}: {self._recorder.state}>"


def _step(
    fn: Callable[..., Any], name: str, agent: str | None, action: str | None, key: str | None
) -> Step[..., Any]:
    return _CalledStep(fn, name=name, agent=agent, action=action, key=key)


class _CalledStep(Step[..., Any]):
    """A step of :meth:`Run.call`.

    A method's object may be the executor itself, whose attributes change from run to run: they do
    not count. So that no call gets the result of another object's, there may be only one.
    """

    _by_value = frozenset({"self"})


# A run and an attempt have one public object each, so that `is` tells them apart.


def public_run(recorder: RunRecorder) -> Run:
    """The :class:`Run` of a recorder."""
    root = recorder.root
    if root.public is None:
        root.public = Run(recorder)
    return cast("Run", root.public)


def public_attempt(recorder: AttemptRecorder) -> Attempt:
    """The :class:`Attempt` of a recorder."""
    if recorder.public is None:
        recorder.public = Attempt(recorder)
    return cast("Attempt", recorder.public)
