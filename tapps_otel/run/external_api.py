"""What authors of adapters get of a third-party executor's run: thin classes over the recorders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from tapps_otel import clock, settings
from tapps_otel.names import new_workflow_id
from tapps_otel.run.codecs.native import to_json
from tapps_otel.run.external_attempt import ExternalStep, checked_attributes
from tapps_otel.run.external_start import ExternalWorkflow, resume_run, start_run
from tapps_otel.run.lookup import store_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.run.external_attempt import ExternalAttemptRecorder
    from tapps_otel.run.external_run import ExternalRunRecorder

__all__ = ["ExternalAttempt", "ExternalRun"]


class ExternalRun:
    """A run that another executor executes, as its adapter records it.

    That executor decides what runs, also on resume; nothing is waited for, cancelled or returned
    from the log. :meth:`start` or :meth:`resume` makes it; as a context manager it is current in
    its block, and ends as the block does::

        with ExternalRun.start("nightly", executor="engine") as run:
            with run.begin_step("load", agent="reader"):
                load()
    """

    __slots__ = ("_recorder",)

    def __init__(self, recorder: ExternalRunRecorder) -> None:
        self._recorder = recorder

    @classmethod
    def start(
        cls,
        name: str,
        *,
        executor: str,
        run_id: str | None = None,
        about: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        log_dir: Path | str | None = None,
    ) -> ExternalRun:
        """Start a run.

        :param name: of its workflow
        :param executor: name of the executor, for the log's ``workflow`` field
        :param run_id: the executor's own, any string; if it has a log, ``<id>.2`` and so on.
            Without one, an id is made from the name
        :param about: what else to write into that field, JSON-native
        :param inputs: JSON-native
        :raises LogError: the log cannot be opened
        :raises TypeError: what is not JSON-native
        """
        own_id = run_id or new_workflow_id(name, clock.timestamp(clock.time_ns()))
        workflow = _workflow(name, executor, about, inputs)
        return cls(start_run(store_of(log_dir), own_id, workflow, settings.current()))

    @classmethod
    def resume(
        cls,
        name: str,
        *,
        executor: str,
        run_id: str,
        about: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        log_dir: Path | str | None = None,
    ) -> ExternalRun:
        """Resume the run of this id, as its next execution; start it if it has no log.

        The parameters are those of :meth:`start`.

        :raises RunBusyError: another process executes it
        :raises LogError: the log was changed, or cannot be opened
        :raises TypeError: what is not JSON-native
        """
        workflow = _workflow(name, executor, about, inputs)
        return cls(resume_run(store_of(log_dir), run_id, workflow, settings.current()))

    @property
    def workflow_id(self) -> str:
        """Names the run and its log."""
        return self._recorder.workflow_id

    @property
    def execution(self) -> int:
        """1, 2, ...: which of the run's executions this is."""
        return self._recorder.execution

    @property
    def trace_id(self) -> str:
        """OpenTelemetry trace of the run, 32 hex digits."""
        return self._recorder.trace_id

    @property
    def log_failure(self) -> str | None:
        """Why events are queued in memory; ``None`` while the log can be written."""
        return self._recorder.log_failure

    def begin_step(
        self,
        step_id: str | None = None,
        *,
        name: str | None = None,
        agent: str | None = None,
        action: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        parent: ExternalAttempt | None = None,
    ) -> ExternalAttempt:
        """Write that a step begins: its next attempt, however the last one ended.

        What encloses it may have ended, and the run, too.

        :param step_id: the executor's own, unique in what encloses the step; without one each call
            is a step of its own, named ``<name>``, ``<name>#2`` and so on
        :param name: for spans and metrics, few different words; by default, the id
        :param attributes: JSON scalars, or lists of them
        :param parent: what encloses it; by default the current step of this run, else the run
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        :raises TypeError: neither id nor name, or an attribute that is not JSON
        """
        shown = name or step_id
        if shown is None:
            raise TypeError("a step needs a step_id or a name")
        return ExternalAttempt(
            self._recorder.begin_step(
                step_id,
                ExternalStep(shown, agent=agent, action=action),
                scope=None if parent is None else parent._recorder,  # noqa: SLF001 - of this module
                attributes=checked_attributes(attributes or {}),
            )
        )

    def skip_step(self, step_id: str, reason: str, *, name: str | None = None) -> None:
        """Write that the executor skips a step, which has failed or was never begun."""
        self._recorder.skip_step(step_id, ExternalStep(name or step_id), reason)

    def annotate(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Write an annotation into the log and onto the run's span.

        :raises TypeError: ``name`` is not a string
        """
        self._recorder.annotate(name, attributes)

    def end(
        self,
        status: str = "completed",
        *,
        error: BaseException | str | None = None,
        question: str | None = None,
    ) -> None:
        """End the run; steps that are in progress may still end. A second end changes nothing.

        :param status: ``completed``, ``failed``, ``cancelled`` or ``paused``; any other word counts
            as ``failed`` and is kept as an attribute
        :param question: what a paused run asks
        """
        self._recorder.leave()
        self._recorder.end(status, error, question=question)

    def close(self) -> None:
        """Release the log and the lease of a run that has not ended: it can be resumed."""
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
        self._recorder.leave()
        if error is None:
            self._recorder.end("completed")
        else:
            self._recorder.end_by(error)

    def __repr__(self) -> str:
        return f"<ExternalRun {self.workflow_id!r}, execution {self.execution}>"


class ExternalAttempt:
    """One try of a step of a third-party executor: what :meth:`ExternalRun.begin_step` returns.

    As a context manager it is the current step in its block, and ends as the block does.
    """

    __slots__ = ("_current", "_recorder")

    def __init__(self, recorder: ExternalAttemptRecorder) -> None:
        self._recorder = recorder
        self._current: AbstractContextManager[None] | None = None

    @property
    def step_id(self) -> str:
        """The step's place in the run, as ``outer/draft``."""
        return self._recorder.step_id

    @property
    def number(self) -> int:
        """1, 2, ...: which of the step's attempts this is."""
        return self._recorder.number

    def end(
        self,
        status: str = "completed",
        *,
        error: BaseException | str | None = None,
        question: str | None = None,
        result: Any = None,
        artifacts: Iterable[Artifact] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """End it; only its first end counts.

        :param status: ``completed``, ``failed``, ``timeout``, ``cancelled``, ``paused`` or
            ``skipped``; any other word counts as ``failed`` and is kept as an attribute
        :param error: why it failed, or was skipped
        :param question: what a paused step asks
        :param result: only recorded; what JSON cannot express is simplified
        :param artifacts: files that it made: paths, or summaries
        :param attributes: JSON scalars, or lists of them
        :raises TypeError: an attribute that is not JSON
        """
        self._recorder.attributes = checked_attributes(attributes or {})
        self._recorder.end_as(status, error, question=question, result=result, artifacts=artifacts)

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
    ) -> None:
        if self._current is not None:
            self._current.__exit__(kind, error, trace)
        if not self._recorder.is_open:
            return
        if error is None:
            self._recorder.finish()
        else:
            self._recorder.fail(error)

    def __repr__(self) -> str:
        return f"<ExternalAttempt {self.number} of {self.step_id!r}: {self._recorder.state}>"


def _workflow(
    name: str,
    executor: str,
    about: Mapping[str, Any] | None,
    inputs: Mapping[str, Any] | None,
) -> ExternalWorkflow:
    described = {"executor": executor, **(about or {})}
    to_json(described)
    return ExternalWorkflow(name, described, to_json(dict(inputs or {})))
