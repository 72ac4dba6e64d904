"""Runs and steps of an executor whose work does not end with one call: that of a generator."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from tapps_otel.instrumentation.execution import (
    IN_PROGRESS,
    Execution,
    fail_step,
    finish_step,
    guarded_end,
    open_run,
)
from tapps_otel.instrumentation.guarding import guarded

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tapps_otel.instrumentation.method_call import MethodCall
    from tapps_otel.instrumentation.spec import Adapter
    from tapps_otel.run.external_attempt import ExternalAttemptRecorder

__all__ = ["RunStage", "StepStage"]


class RunStage:
    """A run whose work a generator does."""

    def __init__(self, adapter: Adapter, execution: Execution, call: MethodCall) -> None:
        self._adapter, self._execution, self._call = adapter, execution, call
        self._tracked = IN_PROGRESS.track(execution)
        self._begun = False

    def begin(self) -> None:
        """Write that it begins."""
        self._tracked.__enter__()
        self._begun = True
        if not self._execution.opened:
            with self._execution.current():
                self._execution.open(partial(open_run, self._adapter, self._call))

    def current(self) -> AbstractContextManager[None]:
        """A context in which its code runs."""
        return self._execution.current()

    def end(self, item: Any) -> None:
        """Write that it ended, with the last item or the result."""
        self._call.result = item
        try:
            self._execution.end(self._adapter, self._call)
        finally:
            self._close()

    def fail(self, error: BaseException) -> None:
        """Write that it ended by an exception."""
        try:
            self._execution.end_with_error(error, self._adapter, self._call)
        finally:
            self._close()

    def abandon(self) -> None:
        """End it if its generator was dropped before the first item."""
        if not self._begun:
            with guarded("an abandoned run is not ended"):
                self.fail(GeneratorExit())

    def _close(self) -> None:
        if self._begun:
            self._tracked.__exit__(None, None, None)
        self._execution.close()


class StepStage:
    """A step whose work does not end with one call.

    :param execution: that it belongs to, where it has not begun
    """

    def __init__(
        self,
        adapter: Adapter,
        call: MethodCall,
        execution: Execution | None,
        attempt: ExternalAttemptRecorder | None = None,
    ) -> None:
        self._adapter, self._call, self._execution = adapter, call, execution
        self._attempt = attempt
        self._begun = False

    def begin(self) -> None:
        """Write that it begins."""
        self._begun = True
        if self._execution is not None:
            self._attempt = self._execution.begin_step(self._adapter, self._call)

    def current(self) -> AbstractContextManager[None]:
        """A context in which its code runs."""
        attempt = self._attempt
        return nullcontext() if attempt is None else attempt.current()

    def end(self, item: Any) -> None:
        """Write that it ended, with the last item or the result."""
        attempt = self._attempt
        if attempt is not None:
            self._call.result = item
            with guarded_end(attempt):
                if attempt.settle():
                    finish_step(self._adapter, self._call, attempt)

    def fail(self, error: BaseException) -> None:
        """Write that it ended by an exception. Raises nothing."""
        if self._attempt is not None:
            fail_step(self._adapter, self._call, self._attempt, error)

    def abandon(self) -> None:
        """End it if its generator was dropped before the first item."""
        if not self._begun:
            with guarded("an abandoned step is not ended"):
                self.fail(GeneratorExit())
