"""What a run waits for: the questions of its pauses, and of runs that it called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.run.scope import paused_signal
from tapps_otel.run.step_spec import Paused

if TYPE_CHECKING:
    from tapps_otel.errors import Question
    from tapps_otel.run.scope import Scope

__all__ = ["Waits"]


class Waits:
    """What a run waits for, and which code has the signal. True once it waits for anything."""

    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id
        self._questions: dict[str, tuple[Question, ...]] = {}  # by step
        self._signal = object()  # marks the contexts of code that Paused was raised in

    def __bool__(self) -> bool:
        return bool(self._questions)

    def add(self, attempt: Scope, questions: tuple[Question, ...]) -> None:
        """Note what an attempt asks, or the run that it called. The caller holds the lock."""
        self._questions[str(attempt.step_id)] = questions

    def note_raised(self) -> None:
        """Note that ``Paused`` is raised in the code that calls this."""
        paused_signal.set(self._signal)

    def was_raised(self) -> bool:
        """Whether ``Paused`` was raised in the code that calls this."""
        return paused_signal.get() is self._signal

    def paused(self, scope: Scope | None = None) -> Paused:
        """The signal that the run waits.

        :param scope: for what is asked inside it; by default, anywhere in the run
        """
        inside = self._questions if scope is None else self._inside(scope)
        return Paused(
            self._workflow_id, tuple(one for step_id in inside for one in self._questions[step_id])
        )

    def is_paused_in(self, scope: Scope) -> bool:
        """Whether a call inside a scope waits, so that the scope cannot end otherwise."""
        return bool(self._questions and self._inside(scope))

    def check_not_paused(self, scope: Scope) -> None:
        """Raise it again, if a call inside a scope waits.

        :raises Paused: one does, and the scope's code has caught that
        """
        if self.is_paused_in(scope):
            raise self.paused(scope)

    def _inside(self, scope: Scope) -> list[str]:
        if scope.step_id is None:
            return list(self._questions)
        return [one for one in self._questions if f"{one}/".startswith(f"{scope.step_id}/")]
