"""The current run and step, for the code of workflows and steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tapps_otel.run.api import public_attempt, public_run
from tapps_otel.run.attempt import AttemptRecorder
from tapps_otel.run.codecs.native import check_text, to_json
from tapps_otel.run.current_recorder import recorder_here, recorder_of
from tapps_otel.run.scope import current_scope
from tapps_otel.run.step_spec import Skipped

if TYPE_CHECKING:
    from tapps_otel.run.api import Attempt, Run

__all__ = ["annotate", "current_run", "current_step", "skip"]


def current_run() -> Run:
    """The run whose code calls this.

    :raises LookupError: it is not called inside a run
    """
    recorder = recorder_here()
    if recorder is None:
        msg = "no current run: call this inside a workflow"
        raise LookupError(msg)
    return public_run(recorder)


def current_step() -> Attempt:
    """The attempt of the step whose code calls this.

    :raises LookupError: it is not called inside a step
    """
    scope = current_scope.get()
    if isinstance(scope, AttemptRecorder):
        return public_attempt(scope)
    msg = "no current step: call this inside a step of a running workflow"
    raise LookupError(msg)


def skip(reason: str, result: Any = None) -> NoReturn:
    """Leave the current step as skipped: its call returns ``result``, now and on resume.

    :raises TypeError: ``reason`` is not a string
    """
    check_text(reason, "the reason of a skip")
    raise Skipped(reason, result)


def annotate(name: str, /, **attributes: Any) -> None:
    """Write an annotation into the run's log and onto the current span.

    Outside a run nothing is written.

    :param attributes: JSON scalars, or lists of them
    :raises TypeError: a value of another type
    """
    scope = current_scope.get()
    if scope is None:
        return
    to_json(attributes)
    recorder_of(scope).annotate(name, attributes, scope)
