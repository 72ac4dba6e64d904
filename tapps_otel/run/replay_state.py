"""The state of a replay: the records that the log has, and what this execution adds to them.

It answers calls by the rules of resume (with the outcome of a record, by letting a record run
again, or as a new step), and raises the refusals. Its caller holds the run's lock.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, NoReturn

from tapps_otel import settings
from tapps_otel.errors import (
    LogError,
    RefusalError,
    StepResultError,
    StepTimeoutError,
)
from tapps_otel.past.plan import Plan
from tapps_otel.redact import combined
from tapps_otel.run import error_messages, failures
from tapps_otel.run.attempt import status_of
from tapps_otel.run.matching import Matcher
from tapps_otel.run.step_spec import Stored

if TYPE_CHECKING:
    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import Fold, RunHistory, StepHistory
    from tapps_otel.run.attempt import AttemptRecorder
    from tapps_otel.run.policy import OnDivergence
    from tapps_otel.run.scope import Scope
    from tapps_otel.run.step_spec import StepSpec

__all__ = ["ReplayState"]


class ReplayState:
    """The records of a run.

    :param module: of the workflow's function
    :param execution: the number of this one
    :ivar stopped: whether calls must be looked at: a refusal was raised, or the run waits
    :ivar refusal: once raised, it is raised by every later call
    :ivar by_id: the steps whose history is kept
    :ivar pauses: those that earlier executions left open
    :ivar children: by scope, its steps in the log, until its matcher takes them over
    """

    def __init__(
        self,
        workflow_id: str,
        fold: Fold,
        blobs: Blobs,
        on_divergence: OnDivergence,
        module: failures.WorkflowModule | None = None,
        *,
        execution: int,
    ) -> None:
        self._module = module
        self._workflow_id, self._blobs, self._execution = workflow_id, blobs, execution
        self._fold, self._plan = fold, Plan(fold.history)
        self.by_id, self.children = fold.history.by_id, self._plan.children
        self._lenient = on_divergence == "rerun"
        self.pauses: list[StepHistory] = []
        self.stopped = False
        self._refusal: RefusalError | None = None

    @property
    def refusal(self) -> RefusalError | None:
        """What every call raises."""
        return self._refusal

    @refusal.setter
    def refusal(self, error: RefusalError | None) -> None:
        self._refusal = error
        self.stopped = self.stopped or error is not None

    @property
    def history(self) -> RunHistory:
        """What is known of the run."""
        return self._fold.history

    def matcher_of(self, scope: Scope) -> Matcher:
        """The records that calls of this scope may take; found at its first call."""
        if scope.matcher is None:
            scope.matcher = Matcher(self._plan.past(scope.step_id))
            if scope.step_id is None:
                self._plan.forget_scope(None)
        return scope.matcher

    # -- answering a call

    def answer(self, scope: Scope, spec: StepSpec, record: StepHistory) -> Stored | None:
        """The outcome of a record that a call took; ``None``: the step must run again.

        :raises Exception: a failure that was handled before, raised again
        :raises StoredResultError: the stored result can no longer be read
        """
        if not (record.stored or record.handled):
            return None
        step_id, definition = record.step_id, spec.definition
        if record.definition != definition and None not in {record.definition, definition}:
            if scope.changed is None:
                scope.changed = {}
            scope.changed[step_id] = None
        if record.handled:
            self._raise_again(record)
        data = record.result
        if record.result_blob is not None:
            try:
                data = self._blobs.get(record.result_blob)
            except LogError as error:
                failures.mark(error, self._workflow_id, step_id)  # no code has failed
                raise
        if scope.step_id is None:  # it is asked for once only, and large runs have many
            self._plan.forget(step_id)
        if data is None or (data == b"null" and record.status == "skipped"):
            return Stored(step_id, None)  # the result of a skip, whatever the annotation says
        try:
            return Stored(step_id, spec.read_result(data))
        except StepResultError as problem:
            self._refuse(error_messages.unreadable(record, self._named(), problem))

    def rebuild(self, step_id: str, described: dict[str, Any]) -> BaseException:
        """The exception that a step raised, made of its description in the log.

        :raises RefusalError: it cannot be made; reading what the log lacks of it raises one, too
        """

        def refuse(detail: str, reason: str) -> NoReturn:
            # Not marked: the failure stays handled, and the step does not run again by itself.
            self.refusal = error_messages.detail_lost(
                step_id, self._named(), described.get("type"), detail, reason
            )
            raise self.refusal

        return failures.rebuild(described, refuse, self._module)

    def _raise_again(self, record: StepHistory) -> NoReturn:
        error = self.rebuild(record.step_id, record.last.error or {})
        if record.status == "timeout" and not isinstance(error, StepTimeoutError):
            error = StepTimeoutError(str(error))
        if status_of(error) in {"interrupted", "cancelled"}:
            # Such a step runs again and is never handled: this log was not written by a run, and
            # would end the program or its task.
            error = failures.unknown_failure(record.last.error or {})
        failures.mark(error, self._workflow_id, record.step_id)
        failures.raise_again(error)

    def check_rerun(self, spec: StepSpec, record: StepHistory) -> None:
        """Check that a step whose outcome is not known may run again.

        :raises RefusalError: it may not
        """
        policy = spec.policy
        if policy.on_interrupted == "fail":
            self._check_settled(spec, record)
        if not record.resolved and record.interruptions > policy.max_interruptions:
            most = policy.max_interruptions
            self._refuse(error_messages.interrupted_too_often(record, self._named(), most))

    def check_new(
        self,
        scope: Scope,
        spec: StepSpec,
        digest: str | None,
        key: str | None,
        order: int | None,
        *,
        arguments: tuple[tuple[Any, ...], dict[str, Any]] | None,
    ) -> None:
        """Check that a call which fits no record may run as a new step.

        Most may: it is only called for a scope with a past, and for steps that must not run twice.

        :param arguments: of the call, for the message
        :raises RefusalError: it takes the place of a record that has something to lose
        """
        if spec.policy.on_interrupted == "fail":
            self._check_settled(spec)
        if order is None or key is not None or self._lenient:
            return
        found = self.matcher_of(scope).guard(spec.name, order, self._plan.loss)
        if found is not None:
            inputs = None if arguments is None else spec.inputs_json(*arguments)
            if inputs is not None:
                inputs = combined(scope.rules, spec.policy.redact).json(inputs)
            hides = self._blobs.codec is not None
            self._refuse(error_messages.diverged(*found, order, digest, inputs, hides_values=hides))

    def _check_settled(self, spec: StepSpec, own: StepHistory | None = None) -> None:
        """Check that it is known what a step that must not run twice did, wherever it was called.

        :param own: the record that the call takes
        :raises StepInterruptedError: it is not
        """
        found = self._plan.unsettled(spec.name, self._execution)
        if own is not None and own.outcome_unknown and not own.resolved:
            found = [own, *(one for one in found if one is not own)]
        if found:
            self._refuse(error_messages.interrupted(found, self._named()))

    def _named(self) -> str:
        """The run, as a command names it."""
        return f"{self._workflow_id}{settings.log_dir_option(self._blobs.folder.parent)}"

    def _refuse(self, error: RefusalError) -> NoReturn:
        failures.mark(error, self._workflow_id, error.step_id)
        self.refusal = error
        raise error

    # -- following this execution

    def feed(self, event: Event, seq: int | None) -> None:
        """Take in an event that was written; ``None``: it is queued, and has no seq yet."""
        if not seq:
            event = copy(event)
            event.seq = self.history.seq + 1
        self._fold.feed(event)

    def remember(
        self, attempt: AttemptRecorder, event: Event, seq: int | None, *, forget: bool
    ) -> None:
        """Take in an event of a step that this execution may try again. Idempotent.

        :param forget: it ended, and no other try follows: no call will ask for it again
        """
        by_id = self.by_id
        around: Any = attempt.scope
        if around.step_id is None and forget and attempt.step_id not in by_id:
            return  # it was forgotten before an interrupt
        if around.step_id is not None and around.step_id not in by_id:
            around.kept = True
            self.remember(around, around.start_event, around.start_event.seq, forget=False)
        known = len(by_id)
        self.feed(event, seq)
        if around.step_id is not None:
            if len(by_id) > known:
                self._plan.add(by_id[attempt.step_id])
            elif attempt.number == 1 and event.event_type == "step_start":  # after an interrupt
                self._plan.add_missing(by_id[attempt.step_id])
        elif forget:
            self._plan.forget(attempt.step_id)
