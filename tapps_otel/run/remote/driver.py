"""What workers have to know of the process that submits steps to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import ref

from tapps_otel import settings
from tapps_otel.otel.environment import delivery_settings, delivery_variables
from tapps_otel.run.current_recorder import recorder_of
from tapps_otel.run.remote.call import CallPickler, modules_of
from tapps_otel.run.remote.messages import Origin, Task, write_origin
from tapps_otel.run.remote.worker import machine_here

if TYPE_CHECKING:
    from msgspec import Raw

    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.run.remote.attempt import RemoteAttempt
    from tapps_otel.run.step import Step

__all__ = ["Driver"]


class Driver:
    """What workers have to know of this process.

    :ivar dump: pickles a call
    :param owned: they execute what it submits, and nothing else
    """

    def __init__(self, *, owned: bool) -> None:
        config = settings.current()
        self._owned, self._machine, self._pid = owned, machine_here(), os.getpid()
        self._environment = delivery_variables()
        self._modules: dict[str, dict[str, str]] = {}
        self._settings = {name: getattr(config, name) for name in delivery_settings(config)}
        self.dump = CallPickler().dump
        self._known: tuple[ref[RunRecorder], Raw] | None = None

    def modules(self, step: Step[..., Any]) -> dict[str, str]:
        """Where a worker finds the modules of a step's calls."""
        found = self._modules.get(step.__module__)
        if found is None:
            found = self._modules[step.__module__] = modules_of(step)
        return found

    def task(self, attempt: RemoteAttempt, modules: dict[str, str]) -> Task:
        """What a worker has to know of an attempt."""
        return Task(
            origin=self._origin_of(recorder_of(attempt)),
            step_id=attempt.step_id,
            attempt=attempt.number,
            span_id=attempt.span_id,
            context=attempt.context(),
            modules=modules,
        )

    def _origin_of(self, run: RunRecorder) -> Raw:
        """What it has to know of the run; written once, for the calls of one run follow another."""
        known = self._known
        if known is None or known[0]() is not run:
            known = self._known = ref(run), self._write_origin(run)
        return known[1]

    def _write_origin(self, run: RunRecorder) -> Raw:
        origin = Origin(
            workflow_id=run.workflow_id,
            workflow=run.name,
            execution=run.execution,
            trace_id=run.trace_id,
            log_dir=str(run.log_dir),
            machine=self._machine,
            pid=self._pid,
            owned=self._owned,
            environment=self._environment,
            settings=self._settings,
            hides_values=run.hides_values,
        )
        return write_origin(origin)
