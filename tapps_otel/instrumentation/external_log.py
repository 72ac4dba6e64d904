"""Runs and steps of executors that report them as events: buses, signals, span processors.

Such events name what they are about by keys of the executor, and may come from any thread or task.
Everything here is guarded: what goes wrong is logged, and never raised into the executor.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import clock, settings
from tapps_otel.instrumentation.execution import is_enabled, store_under
from tapps_otel.instrumentation.guarding import guarded
from tapps_otel.names import new_workflow_id
from tapps_otel.run.codecs.native import to_json
from tapps_otel.run.external_attempt import (
    ExternalAttemptRecorder,
    ExternalStep,
    checked_attributes,
)
from tapps_otel.run.external_start import ExternalWorkflow, start_run, start_turn
from tapps_otel.run.lookup import store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.log.store import RunSummary
    from tapps_otel.run.external_run import ExternalRunRecorder
    from tapps_otel.run.scope import Scope

__all__ = ["ExternalLog"]

_MOST_LEFT: Final = 4096  # steps that are kept although they, or their runs, have ended
_DEEPEST: Final = 1000  # aliases in a row


def _always_new(_: RunSummary) -> str:
    return "new"


@dataclass(slots=True)
class _Run:
    run: ExternalRunRecorder
    attached: bool
    keys: set[Hashable] = field(default_factory=set)  # of its steps and aliases
    aliases: set[Hashable] = field(default_factory=set)


@dataclass(slots=True)
class _Step:
    owner: _Run
    attempt: ExternalAttemptRecorder
    attached: AbstractContextManager[None] | None = None


class ExternalLog:
    """Logs and traces the runs of an executor by its events.

    Each event names its run or step by a key, which may be anything hashable. A key that was never
    begun is ignored. ::

        log = ExternalLog("crew")
        bus.on(CrewStarted, lambda e: log.run_begin(e.crew_id, name=e.crew))
        bus.on(ToolStarted, lambda e: log.step_begin(e.id, parent=e.crew_id, name=e.tool))
        bus.on(ToolEnded, lambda e: log.step_end(e.id, error=e.error))
        bus.on(CrewEnded, lambda e: log.run_end(e.crew_id))

    :param executor: its name, for the log's ``workflow`` field
    :param log_dir: folder of the logs, by default the one in the settings
    """

    def __init__(self, executor: str, *, log_dir: Path | str | None = None) -> None:
        self._executor, self._log_dir = executor, log_dir
        self._lock = threading.RLock()
        self._runs: dict[Hashable, _Run] = {}
        self._steps: dict[Hashable, _Step] = {}
        # By these, steps find a parent that has ended, and end after their run.
        self._left: OrderedDict[Hashable, _Step] = OrderedDict()
        self._aliases: dict[Hashable, Hashable] = {}

    # -- runs

    def run_begin(
        self,
        key: Hashable,
        *,
        name: str | None = None,
        run_id: str | None = None,
        thread: str | None = None,
        continues: Callable[[RunSummary], str] | None = None,
        about: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        attach: bool = False,
    ) -> None:
        """Start a run.

        :param name: of its workflow; by default, the executor's
        :param run_id: any string; if it has a log, ``<id>.2`` and so on. Without one, an id is made
            from the name
        :param thread: the id of what the run is a turn of, in place of ``run_id``
        :param continues: decides from the summary of the thread's last run: ``new`` (the default),
            ``resume``, ``fork`` or ``abandon_and_new``
        :param about: what else to write into the log's ``workflow`` field, JSON-native
        :param inputs: JSON-native
        :param attach: make it current in the calling context, until it ends there
        """
        with guarded("a run continues without a log"):
            if not is_enabled():
                return
            workflow = self._describe(name or self._executor, about, inputs)
            run = self._open(workflow, run_id, thread, continues)
            if attach:
                run.enter_root()
            with self._lock:
                replaced = self._runs.get(key)
                self._runs[key] = _Run(run, attach)
            if replaced is not None:  # its end was never told
                replaced.run.end("cancelled")

    def _describe(
        self, name: str, about: Mapping[str, Any] | None, inputs: Mapping[str, Any] | None
    ) -> ExternalWorkflow:
        described = {"executor": self._executor, **(about or {})}
        return ExternalWorkflow(name, described, to_json(dict(inputs or {})))

    def _open(
        self,
        workflow: ExternalWorkflow,
        run_id: str | None,
        thread: str | None,
        continues: Callable[[RunSummary], str] | None,
    ) -> ExternalRunRecorder:
        config = settings.current()
        store = store_under(None) if self._log_dir is None else store_of(self._log_dir)
        if thread is not None:
            return start_turn(store, thread, workflow, config, continues or _always_new)
        own_id = run_id or new_workflow_id(workflow.name, clock.timestamp(clock.time_ns()))
        return start_run(store, own_id, workflow, config)

    def run_end(
        self,
        key: Hashable,
        *,
        status: str = "completed",
        error: BaseException | str | None = None,
        question: str | None = None,
    ) -> None:
        """End a run. Its steps that are in progress may still end.

        :param status: ``completed``, ``failed``, ``cancelled`` or ``paused``; any other word counts
            as ``failed`` and is kept as an attribute
        :param question: what a paused run asks
        """
        with guarded("the end of a run is not logged"):
            with self._lock:
                ended = self._runs.pop(key, None)
                if ended is None:
                    return
                self._forget(ended)
            if ended.attached:
                ended.run.leave()
            ended.run.end(status, error, question=question)

    def _forget(self, ended: _Run) -> None:
        """Keep of a run that ends only its steps in progress, up to a number."""
        for key in ended.keys:
            step = self._steps.pop(key, None)
            if step is not None:
                self._leave(key, step)
        for key in ended.aliases:
            self._aliases.pop(key, None)

    def _leave(self, key: Hashable, step: _Step) -> None:
        self._left[key] = step
        while len(self._left) > _MOST_LEFT:
            self._left.popitem(last=False)

    # -- steps

    def step_begin(
        self,
        key: Hashable,
        *,
        parent: Hashable,
        name: str,
        step_id: str | None = None,
        agent: str | None = None,
        action: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        attach: bool = False,
    ) -> None:
        """Write that a step begins.

        :param parent: key of the run or the step that encloses it, or an alias of one
        :param name: for spans and metrics: few different words
        :param step_id: the executor's own, equal in each attempt of the step; without one, each
            call is a step of its own: ``<name>``, ``<name>#2`` and so on
        :param attributes: JSON scalars, or lists of them
        :param attach: make it current in the calling context, until it ends there: what libraries
            do meanwhile is under its span
        :raises LogWriteError: it cannot be written, and ``on_log_failure`` is ``stop``
        """
        found = self._find_logged(parent)
        if found is None:
            return
        owner, scope = found
        with guarded("a step continues without a log", refuses=owner.run.stops):
            spec = ExternalStep(name, agent=agent, action=action)
            held = None
            with guarded("the attributes of a step are not logged"):
                held = checked_attributes(attributes or {})
            attempt = owner.run.begin_step(step_id, spec, scope=scope, attributes=held)
            step = _Step(owner, attempt)
            with self._lock:
                self._steps[key] = step
                owner.keys.add(key)
            if attach:
                context = attempt.current()
                context.__enter__()
                step.attached = context

    def step_end(
        self,
        key: Hashable,
        *,
        status: str = "completed",
        error: BaseException | str | None = None,
        question: str | None = None,
        result: Any = None,
        artifacts: Iterable[Artifact] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write that a step ends; it failed if there is an error and no other status.

        :param status: ``completed``, ``failed``, ``timeout``, ``cancelled``, ``paused`` or
            ``skipped``; any other word counts as ``failed`` and is kept as an attribute
        :param error: why it failed, or was skipped
        :param question: what a paused step asks
        :param result: only recorded; what JSON cannot express is simplified
        :param artifacts: files that it made: paths, or summaries
        :param attributes: JSON scalars, or lists of them
        """
        with guarded("the end of a step is not logged"):
            with self._lock:
                step = self._steps.pop(key, None)
                if step is not None:
                    self._leave(key, step)
                step = self._left.get(key)
            if step is None or not step.attempt.is_open:
                return
            if step.attached is not None:
                step.attached.__exit__(None, None, None)
                step.attached = None
            with guarded("the attributes of a step are not logged"):
                step.attempt.attributes = checked_attributes(attributes or {})
            if error is not None and status == "completed":
                status = "failed"
            step.attempt.end_as(
                status, error, question=question, result=result, artifacts=artifacts
            )

    def alias(self, key: Hashable, parent: Hashable) -> None:
        """Let what names ``key`` as its parent belong to ``parent``.

        For what the executor reports and should not be shown as a step.
        """
        with guarded("what belongs to a key is not logged"), self._lock:
            found = self._find(parent)
            if found is not None:
                self._aliases[key] = parent
                found[0].aliases.add(key)

    def _find_logged(self, key: Hashable) -> tuple[_Run, Scope] | None:
        """The run and the scope that a key stands for, unless that run is not logged here."""
        with guarded("a step continues without a log"):
            found = self._find(key)
            return None if found is None or found[0].run.is_detached() else found
        return None

    def _find(self, key: Hashable) -> tuple[_Run, Scope] | None:
        """The run and the scope that a key stands for; ``None`` for an unknown one."""
        with self._lock:
            for _ in range(_DEEPEST):
                run = self._runs.get(key)
                if run is not None:
                    return run, run.run.root
                step = self._steps.get(key) or self._left.get(key)
                if step is not None:
                    return step.owner, step.attempt
                if key not in self._aliases:
                    return None
                key = self._aliases[key]
        return None
