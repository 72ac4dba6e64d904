"""What is being carried out here: for the code of workflows and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tapps_otel.run.attempt import Attempt
from tapps_otel.run.scope import current_scope
from tapps_otel.run.step_spec import Skipped
from tapps_otel.run.values import check_text, to_json

if TYPE_CHECKING:
    from tapps_otel.run.recorder import Run

__all__ = ["annotate", "current_run", "current_step", "skip"]


def current_run() -> Run:
    """The run whose code is being carried out here.

    :raises LookupError: none is
    """
    scope = current_scope.get()
    if scope is None:
        msg = "no run here: this is called inside a workflow"
        raise LookupError(msg)
    return scope.run


def current_step() -> Attempt:
    """The attempt of the step that is being carried out here.

    :raises LookupError: none is
    """
    scope = current_scope.get()
    if isinstance(scope, Attempt):
        return scope
    msg = "no step here: this is called inside a step of a running workflow"
    raise LookupError(msg)


def skip(reason: str, result: Any = None) -> NoReturn:
    """Leave the current step as skipped: its call gives back ``result``, now and on resume.

    :raises TypeError: ``reason`` is no string
    """
    check_text(reason, "the reason of a skip")
    raise Skipped(reason, result)


def annotate(name: str, **attributes: Any) -> None:
    """Write an event of your own into the run's log and onto the current span.

    Outside a run nothing is written.

    :param attributes: JSON scalars, or lists of them
    :raises TypeError: a value of another type
    """
    scope = current_scope.get()
    if scope is None:
        return
    to_json(attributes)
    scope.run.annotate(name, attributes, scope)
