"""What the library says when it refuses to go on, and what a person can do then. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.errors import DivergenceError, InterruptedTooOftenError, StepInterruptedError

if TYPE_CHECKING:
    from tapps_otel.past.fold import StepHistory

__all__ = ["diverged", "interrupted", "interrupted_too_often"]


def diverged(record: StepHistory, loss: str, order: int, now: str | None) -> DivergenceError:
    """A call came the same way as ``record``, with other inputs.

    :param loss: what would be passed over
    :param now: the call's inputs, or their digest
    """
    then = record.inputs.decode(errors="replace") if record.inputs else record.inputs_digest
    return DivergenceError(
        f"step {record.name!r} was called with other inputs than before, in the same place (call "
        f"{order} of that name). The log has {record.step_id!r} there, with {loss} that would be "
        f"passed over:\n  then: {then}\n  now:  {now}\nNothing was run. If a clock or a random "
        "id is among the inputs, make it a step of its own, or give the call a key. If the change "
        'is meant, @workflow(on_divergence="rerun") runs it as a new step. (Where digests are '
        "shown: TAPPS_OTEL_CAPTURE_INPUTS=1 keeps the inputs themselves.)",
        record.step_id,
    )


def interrupted(record: StepHistory, workflow_id: str) -> StepInterruptedError:
    """A step that must not run twice was interrupted."""
    return StepInterruptedError(
        f"step {record.step_id!r} was interrupted, and is not run again by itself "
        "(on_interrupted='fail'): find out what it did, then "
        f"`tapps-otel resolve {workflow_id} {record.step_id} --result JSON`, or --rerun",
        record.step_id,
    )


def interrupted_too_often(
    record: StepHistory, workflow_id: str, most: int
) -> InterruptedTooOftenError:
    """A step was interrupted again and again."""
    return InterruptedTooOftenError(
        f"step {record.step_id!r} was interrupted {record.interruptions} times in a row, more than "
        f"max_interruptions={most}: does it kill its process? "
        f"`tapps-otel resolve {workflow_id} {record.step_id} --rerun` lets it run again, "
        "--result JSON says what it gave",
        record.step_id,
    )
