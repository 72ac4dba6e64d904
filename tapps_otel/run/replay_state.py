"""What the log knew, and what this execution must know of itself: the run's memory.

It answers calls by the rules of resume: from a record, by running a record again, or as something
new; and it raises the refusals. Called with the run's lock held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from tapps_otel.errors import RefusalError, StepTimeoutError
from tapps_otel.past.plan import Plan
from tapps_otel.run import error_messages, failures
from tapps_otel.run.matching import Matcher
from tapps_otel.run.step_spec import Stored

if TYPE_CHECKING:
    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import Fold, RunHistory, StepHistory
    from tapps_otel.run.attempt import Attempt
    from tapps_otel.run.scope import Scope
    from tapps_otel.run.step_spec import Call

__all__ = ["Memory"]


class Memory:
    """The records of a run.

    :param home: module of the workflow's function
    :ivar refusal: once raised, it is raised by every later call
    :ivar by_id: the steps whose history is kept
    :ivar children: by scope, the steps that it ever had, until they are handed to its matcher
    """

    def __init__(
        self,
        workflow_id: str,
        fold: Fold,
        blobs: Blobs,
        on_divergence: str,
        home: str | None = None,
    ) -> None:
        self._home = home
        self._workflow_id, self._blobs = workflow_id, blobs
        self._fold, self._plan = fold, Plan(fold.history)
        self.by_id, self.children = fold.history.by_id, self._plan.children
        self._lenient = on_divergence == "rerun"
        self.refusal: RefusalError | None = None

    @property
    def history(self) -> RunHistory:
        """What is known."""
        return self._fold.history

    def matcher_of(self, scope: Scope) -> Matcher:
        """What calls of this scope may take; found when the first one comes."""
        if scope.matcher is None:
            scope.matcher = Matcher(self._plan.past(scope.step_id))
            if scope.step_id is None:
                self._plan.forget_scope(None)
        return scope.matcher

    # -- answering a call

    def answer(self, scope: Scope, call: Call, record: StepHistory) -> Stored | None:
        """The outcome of a record that a call took; ``None``: it is to run again.

        :raises Exception: a failure that was handled before, raised again
        """
        if not (record.stored or record.handled):
            return None
        step_id, definition = record.step_id, call.definition
        if record.definition != definition and None not in {record.definition, definition}:
            if scope.changed is None:
                scope.changed = {}
            scope.changed[step_id] = None
        if record.handled:
            self._raise_again(record)
        data = record.result
        if record.result_blob is not None:
            data = self._blobs.get(record.result_blob)
        if scope.step_id is None:  # nobody asks twice, and large runs have many
            self._plan.forget(step_id)
        if data is None or (data == b"null" and record.status == "skipped"):
            return Stored(step_id, None)  # a skip's, whatever the annotation says
        return Stored(step_id, call.read_result(data))

    def _raise_again(self, record: StepHistory) -> NoReturn:
        error = failures.rebuild(record.last.error, self._home)
        if record.status == "timeout" and not isinstance(error, StepTimeoutError):
            error = StepTimeoutError(str(error))
        error.add_note(
            f"raised again from the log of run {self._workflow_id}: it was handled before"
        )
        failures.mark(error, self._workflow_id, record.step_id)
        raise error

    def check_rerun(self, call: Call, record: StepHistory) -> None:
        """:raises RefusalError: it was interrupted, and is not to run again by itself"""
        policy = call.policy
        if record.status != "interrupted" or record.resolved:
            return
        if policy.on_interrupted == "fail":
            self._refuse(error_messages.interrupted(record, self._workflow_id))
        if record.interruptions > policy.max_interruptions:
            most = policy.max_interruptions
            self._refuse(error_messages.interrupted_too_often(record, self._workflow_id, most))

    def check_new(
        self, scope: Scope, call: Call, digest: str | None, key: str | None, order: int | None
    ) -> None:
        """Let a call pass that no record fits.

        :raises RefusalError: the guard knows where it came from
        """
        matcher = self.matcher_of(scope)
        once = call.policy.on_interrupted == "fail"
        lost = matcher.lost(call.name, digest, key) if once else None
        if lost is not None:
            self._refuse(error_messages.interrupted(lost, self._workflow_id))
        if order is None or key is not None or self._lenient:
            return
        found = matcher.guard(
            call.name, order, lambda record: self._plan.loss(record, interruptible=not once)
        )
        if found is not None:
            self._refuse(error_messages.diverged(*found, order, digest))

    def _refuse(self, error: RefusalError) -> NoReturn:
        failures.mark(error, self._workflow_id, error.step_id)
        self.refusal = error
        raise error

    # -- keeping up

    def feed(self, event: Event, seq: int | None) -> None:
        """Take in an event that was written; ``None``: it waits, and has no seq yet."""
        event.seq = self.history.seq + 1 if seq is None else seq
        self._fold.feed(event)

    def follow(
        self, attempt: Attempt, event: Event, seq: int | None, *, forget: bool = False
    ) -> None:
        """Keep the history of what may be tried again in this execution up to date.

        That is: steps inside steps, what encloses them, and what the log knew before. A step of
        the workflow itself that encloses nothing is not kept: a long run would grow.

        :param forget: it ended, and no other try follows: nobody will ask for it again
        """
        by_id = self.by_id
        around: Any = attempt.scope
        if around.step_id is not None and around.step_id not in by_id:
            self.follow(around, around.start_event, around.start_event.seq)
        known = len(by_id)
        self.feed(event, seq)
        if around.step_id is not None:
            if len(by_id) > known:
                self._plan.add(by_id[attempt.step_id])
        elif forget:
            self._plan.forget(attempt.step_id)
