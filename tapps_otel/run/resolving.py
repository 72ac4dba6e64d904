"""Decisions of a person about a run: declare damage of its log, resolve an interrupted step.

Both take the lease, so that no process executes the run meanwhile, and only append to the log.
Their events belong to the execution that follows, like the seal of a torn end.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tapps_otel import clock
from tapps_otel.errors import RunConflictError
from tapps_otel.log.event import Event
from tapps_otel.log.reader import check
from tapps_otel.names import log_name, new_span_id, steps_around
from tapps_otel.past.fold import FAILED, RESOLVED
from tapps_otel.redact import rules_here
from tapps_otel.run.decision import WHY_REFUSED, is_refused_secret, leased, put_result, writing
from tapps_otel.run.ends_from_history import event_of
from tapps_otel.run.lookup import find
from tapps_otel.run.person import person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["repair", "resolve"]


def repair(workflow_id: str, *, log_dir: Path | str | None = None) -> tuple[int, int, int] | None:
    """Declare all bytes after the last good line as damaged, because a person accepts that.

    Nothing is removed or rewritten: a ``log_repair`` is appended and synced.

    :returns: offset and length of the damage, and the seq of the declaration; ``None`` if the log
        needs none
    :raises RunNotFoundError: there is no such run
    :raises RunBusyError: a process executes it
    :raises LogDamagedError: the file is not a log of tapps_otel
    :raises LogVersionError: a newer format
    :raises LogWriteError: it cannot be written
    """
    store, workflow_id = find(workflow_id, log_dir)
    store.summary(workflow_id)  # a run that does not exist gets no lease file
    with leased(store, workflow_id) as lease:
        region = check(store.log_path(workflow_id), workflow_id).region
        if region is None:
            return None
        with writing(store, workflow_id, lease, accept_damage=True) as (_, writer):
            return region.offset, region.length, writer.seq


def resolve(
    workflow_id: str,
    step_id: str,
    *,
    result: bytes | None = None,
    reason: str | None = None,
    log_dir: Path | str | None = None,
) -> None:
    """Resolve an interrupted or failed step; the log says who decided that, and when.

    A completed step can be run again, too: its stored result is no longer used.

    :param result: its result, as compact JSON: the step has completed, and does not run again;
        ``None``: it did not do its work, and runs again on resume
    :param reason: for the log
    :raises RunNotFoundError: there is no such run
    :raises RunBusyError: a process executes it
    :raises RunConflictError: the run has completed; no such step; a result for a step that has
        not failed and was not interrupted; a result that is a secret, and those are not stored
        (``redact_results``)
    :raises LogDamagedError: the log was changed; nothing was written
    :raises DecryptionError: values of the run cannot be decrypted
    :raises LogWriteError: it cannot be written
    """
    store, workflow_id = find(workflow_id, log_dir)
    store.summary(workflow_id)
    if result is not None and is_refused_secret(result):
        raise RunConflictError(f"the result of step {step_id!r} was not written: {WHY_REFUSED}")
    with leased(store, workflow_id) as lease, writing(store, workflow_id, lease) as (fold, writer):
        step = _find(fold.history, step_id, rerun=result is None)
        resolution = _Resolution(fold.history, step)
        if result is not None:
            for event in resolution.finish(store, result):
                writer.append(event, sync=True)
        # After the result: alone in the log, it would let the step run again.
        by = "rerun" if result is None else "result"
        writer.append(resolution.decision(by, reason), sync=True)


def _find(history: RunHistory, step_id: str, *, rerun: bool) -> StepHistory:
    name = history.workflow_id
    if history.status == "completed":
        raise RunConflictError(f"run {name!r} has completed: there is nothing to resolve")
    step = history.by_id.get(step_id)
    if step is None:
        waiting = [one.step_id for one in history.steps if _is_interrupted(one)]
        raise RunConflictError(
            f"run {name!r} has no step {step_id!r}. Interrupted steps: "
            f"{', '.join(map(repr, waiting[:20])) or 'none'}. `tapps-otel show {name}` lists all"
        )
    if step.pause is not None and not step.waits and step.status != "completed":
        raise RunConflictError(
            f"step {step_id!r} of run {name!r} is a pause that was {step.status}: a resume asks "
            "again"
        )
    if step.waits:
        raise RunConflictError(
            f"step {step_id!r} of run {name!r} is a pause, which is not resolved but answered: "
            f"`tapps-otel answer {log_name(name)} {shlex.quote(step_id)} --json JSON`"
        )
    _check_not_inside_a_result(history, step)
    if rerun and step.status == "completed":  # its result may no longer fit the code
        return step
    if not _is_interrupted(step) and step.status not in FAILED:
        runs = (
            "resume takes its result from the log"
            if step.stored
            else "resume runs it again by itself"
        )
        raise RunConflictError(
            f"step {step_id!r} of run {name!r} was not interrupted, it is {step.status}: {runs}"
        )
    return step


def _check_not_inside_a_result(history: RunHistory, step: StepHistory) -> None:
    """Check that no step around has a stored result: a resume takes that, and asks for no more.

    :raises RunConflictError: one has
    """
    for outer in steps_around(step.step_id):
        around = history.by_id.get(outer)
        if around is not None and around.stored:
            raise RunConflictError(
                f"step {step.step_id!r} of run {history.workflow_id!r} is inside {outer!r}, which "
                "has a stored result: a resume takes that, and calls nothing inside. To run both "
                f"again: `tapps-otel resolve {log_name(history.workflow_id)} "
                f"{shlex.quote(outer)} --rerun`"
            )


def _is_interrupted(step: StepHistory) -> bool:
    """Whether its last attempt never ended; a later execution may have recorded that."""
    return not step.last.end_seq or step.status == "interrupted"


class _Resolution:
    """The events that resolve a step, written before the execution that resumes the run."""

    def __init__(self, history: RunHistory, step: StepHistory) -> None:
        self._history, self._step = history, step
        self._execution = history.executions[-1].number + 1 if history.executions else 1

    def finish(self, store: Store, result: bytes) -> Iterator[Event]:
        """End the open attempt with a result; if it has ended, a new one of zero duration."""
        step, last, history = self._step, self._step.last, self._history
        number, span_id, started = last.number, last.span_id, last
        at = history.executions[-1].last_timestamp
        duration = max(0, clock.timestamp_ns(at) - started.started_ns)
        if last.end_seq:
            number, span_id, duration = number + 1, new_span_id(), 0
            begin = self._event("step_start", at, number, span_id)
            begin.status = "running"
            for field in ("inputs_digest", "key", "definition"):
                value = getattr(step, field)
                if value is not None:
                    setattr(begin, field, value)
            if last.order is not None:
                begin.order = last.order
            yield begin
        event = self._event("step_finish", max(at, last.timestamp), number, span_id)
        event.status, event.duration_ns = "completed", duration
        put_result(event, result, store)
        yield event

    def decision(self, by: str, reason: str | None) -> Event:
        """The decision itself, at the time it was made."""
        return Event(
            event_type="annotation",
            workflow_id=self._history.workflow_id,
            timestamp=clock.timestamp(clock.time_ns()),
            execution=self._execution,
            step_id=self._step.step_id,
            name=RESOLVED,
            attributes={
                "by": by,
                **person(),
                **({} if reason is None else {"reason": rules_here().text(reason)}),
            },
        )

    def _event(self, event_type: str, at: str, number: int, span_id: str | None) -> Event:
        return event_of(
            self._history,
            self._step,
            event_type,
            at=at,
            execution=self._execution,
            number=number,
            span_id=span_id,
        )
