"""The messages of refusals: what was refused, why, and what to do next. Pure.

They name a run as a command does: with the folder of its log, where the command would look into
another.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, TypeVar

from tapps_otel.errors import (
    DivergenceError,
    FailureDetailError,
    InterruptedTooOftenError,
    StepInterruptedError,
    StoredResultError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.errors import StepResultError
    from tapps_otel.past.fold import StepHistory

__all__ = [
    "detail_lost",
    "diverged",
    "excerpt",
    "interrupted",
    "interrupted_too_often",
    "unreadable",
    "with_values",
]

_E = TypeVar("_E", bound=BaseException)
_SHOWN_STEPS: Final = 10
_UNKNOWN: Final = {  # how steps end whose outcome is not known, by their status
    "cancelled": "was cancelled",
    "timeout": "ran out of time",
    "failed": "has run, its result could not be stored",
}
_SHOWN: Final = 500  # characters of inputs in a message


def diverged(
    record: StepHistory,
    loss: str,
    order: int,
    digest: str | None,
    inputs: bytes | None,
    *,
    hides_values: bool,
) -> DivergenceError:
    """The refusal of a call in the place of ``record``, with other inputs.

    :param loss: what would be passed over
    :param digest: of the call's inputs
    :param inputs: as JSON, if they have such a form
    :param hides_values: whether no value may be in the message
    """
    then = _shown(record.inputs, record.inputs_digest)
    now = _shown(inputs, digest)
    return with_values(
        lambda shown: DivergenceError(
            f"step {record.name!r} was called with other inputs than before: call {order} of that "
            f"name is {record.step_id!r} in the log, with {loss} that would be passed over{shown}"
            "Nothing was run. If a clock or a random id is among the inputs, make it a step of "
            "its own, or give the call a key. If the change is intended, "
            '@workflow(on_divergence="rerun") runs the call as a new step. (To see the inputs that '
            "the log has, set TAPPS_OTEL_CAPTURE_INPUTS=1 before a run: else it has their digest.)",
            record.step_id,
        ),
        then,
        now,
        hides_values=hides_values,
    )


def with_values(make: Callable[[str], _E], then: str, now: str, *, hides_values: bool) -> _E:
    """An error that shows what a value was and is.

    The message of an error is in plain text in the log and on spans, its notes are not.

    :param make: makes the error of the part of its message that has the values
    :param hides_values: put them into a note instead
    """
    shown = f"  then: {then}\n  now:  {now}"
    if not hides_values:
        return make(f":\n{shown}\n")
    error = make(". ")
    error.add_note(shown)
    return error


def interrupted(records: list[StepHistory], run: str) -> StepInterruptedError:
    """The refusal to run a step again whose outcome is not known.

    :param records: that of the call, and others of its step: it does not begin before all are known
    """
    record, *others = records
    what = _UNKNOWN.get(record.status, "was interrupted")
    text = (
        f"step {record.step_id!r} {what}, and does not run again by itself "
        "(on_interrupted='fail'): find out what it did, then run "
        f"`{_resolve(run, record)} --result JSON`, or with --rerun"
    )
    if others:
        shown = ", ".join(repr(one.step_id) for one in others[:_SHOWN_STEPS])
        text += f". Then do that for {shown}{', ...' if len(others) > _SHOWN_STEPS else ''}, too"
    return StepInterruptedError(text, record.step_id)


def _resolve(run: str, record: StepHistory) -> str:
    """The command that resolves a step, without its choice."""
    return f"tapps-otel resolve {run} {shlex.quote(record.step_id)}"


def detail_lost(
    step_id: str, run: str, kind: object, detail: str, reason: str
) -> FailureDetailError:
    """The refusal to read what the log could not keep of a failure that is raised from it.

    :param kind: name of the exception's class
    """
    return FailureDetailError(
        f"{detail!r} of the {kind} that step {step_id!r} raised is not in the "
        f"log ({reason}): the workflow could take another branch than before. "
        f"`tapps-otel resolve {run} {shlex.quote(step_id)} --rerun` lets the step run "
        "again; with --result JSON instead, that is its result. To keep it, let the step raise an "
        "exception with plain values, or register a codec for the class of what is lost "
        "(register_codec) before the run",
        step_id,
        detail,
    )


def interrupted_too_often(record: StepHistory, run: str, most: int) -> InterruptedTooOftenError:
    """The refusal to run a step again that was interrupted many times in a row."""
    return InterruptedTooOftenError(
        f"step {record.step_id!r} was interrupted {record.interruptions} times in a row, more than "
        f"max_interruptions={most}: does it kill its process? "
        f"`{_resolve(run, record)} --rerun` lets it run again; with "
        "--result JSON instead, that is its result",
        record.step_id,
    )


def unreadable(record: StepHistory, run: str, problem: StepResultError) -> StoredResultError:
    """The refusal to continue without a result that can no longer be read."""
    return StoredResultError(
        f"{problem}. Nothing was run: undo the change, give the step a new name, or let it run "
        f"again: `{_resolve(run, record)} --rerun`",
        record.step_id,
    )


def _shown(inputs: bytes | None, digest: str | None) -> str:
    """Inputs as a message has them, or their digest."""
    return f"SHA-256 {digest}" if inputs is None else excerpt(inputs)


def excerpt(data: bytes) -> str:
    """A screenful of JSON."""
    text = data.decode(errors="replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(data)} bytes)"
