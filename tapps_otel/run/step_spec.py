"""What all calls of a step have in common, and what a call can result in without running. Pure."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from tapps_otel.errors import RunPausedError, StepResultError
from tapps_otel.names import escape
from tapps_otel.run.codecs.native import NotStorableError, check_text, from_json, to_json
from tapps_otel.run.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.errors import Question
    from tapps_otel.log.event import Event
    from tapps_otel.run.scope import Recorder
    from tapps_otel.run.values import Signature

__all__ = [
    "NOT_PERSISTED",
    "Paused",
    "Skipped",
    "StepSpec",
    "Stored",
    "refuse_coroutine",
    "shown_cause",
]

NOT_PERSISTED: Final = "persist=False"  # why such a step's result is not in the log


class Skipped(BaseException):
    """Raised by ``skip()``; an ``except Exception`` of the user does not catch it."""

    def __init__(self, reason: str, result: object) -> None:
        self.reason, self.result = reason, result
        super().__init__(reason)


class Paused(BaseException):
    """Leaves the code of a run that waits; an ``except Exception`` of the user does not catch it.

    :ivar workflow_id: of the run that waits
    :ivar questions: what for
    """

    def __init__(self, workflow_id: str, questions: tuple[Question, ...]) -> None:
        self.workflow_id, self.questions = workflow_id, questions
        super().__init__(f"run {workflow_id!r} waits: {'; '.join(map(str, questions))}")


def shown_cause(raised: BaseException, error: BaseException) -> BaseException | None:
    """What a traceback shows as the cause of what leaves a run in place of ``error``."""
    return None if isinstance(raised, RunPausedError) else error


class StepSpec:
    """What all calls of a step have in common: made once, used by every call.

    :ivar title: names it in messages
    :ivar definition: digest of the function's code, 16 hex digits
    :ivar inputs_json: makes JSON of a call's arguments; ``None`` if they have no such form
    :ivar read_result: makes the function's result from stored JSON; raises
        :class:`StepResultError` if it cannot
    :ivar attributes: of the events that start it, and of its spans
    :ivar syncs_start: whether the start of an attempt is synced before its code runs
    """

    def __init__(
        self,
        name: str,
        *,
        agent: str | None = None,
        action: str | None = None,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        signature: Signature | None = None,
        definition: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        check_text(name, "the name of a step")
        for value, what in ((agent, "agent"), (action, "action")):
            if value is not None:
                check_text(value, f"{what} of step {name!r}")
        self.name, self.escaped, self.title = name, escape(name), f"step {name!r}"
        self.agent, self.action, self.policy = agent, action, policy
        self.definition, self.attributes = definition, attributes
        self.syncs_start = policy.on_interrupted == "fail"
        self._signature = signature
        self._write: Callable[[object], bytes] | None = None
        self.read_result = from_json if signature is None else signature.result_from_json
        self.inputs_json: Callable[[tuple[Any, ...], dict[str, Any]], bytes | None] = (
            _no_inputs if signature is None else signature.captured
        )

    def put_result(self, run: Recorder, event: Event, value: object) -> None:
        """Put the step's result into the event that ends it, if results are stored.

        :raises StepResultError: it cannot be stored
        """
        if self.policy.persist:
            store = run.store_result
            store(event, self.result_json(value), self.title, self.policy)
        else:
            refuse_coroutine(value, self.title)
            event.result_omitted = NOT_PERSISTED

    def put_skip_result(self, run: Recorder, event: Event, value: object) -> None:
        """Put the result of a skip into its event.

        :raises StepResultError: it cannot be stored
        """
        run.store_result(event, self.skip_result_json(value), self.title, self.policy)

    def result_json(self, value: object) -> bytes:
        """The step's result as JSON.

        :raises StepResultError: it cannot be stored
        """
        write = self._write or self._writer()
        try:
            return write(value)
        except NotStorableError as error:
            refuse_coroutine(value, self.title)
            raise self._refusal(error) from error.__cause__

    def skip_result_json(self, value: object) -> bytes:
        """The result of a skip as JSON; ``None`` fits every annotation.

        :raises StepResultError: it cannot be stored
        """
        return b"null" if value is None else self.result_json(value)

    def _writer(self) -> Callable[[object], bytes]:
        """What writes results: of annotations only once they can be resolved."""
        signature = self._signature
        self._write = write = to_json if signature is None else signature.result.write
        return write

    def _refusal(self, error: NotStorableError) -> StepResultError:
        if self._signature is not None:
            return self._signature.refusal(error)
        msg = (
            f"result of {self.title} cannot be stored: {error}. Its code has run, and what that "
            "did is done"
        )
        return StepResultError(msg, error.path)


def refuse_coroutine(value: object, what: str) -> None:
    """Close a coroutine that a call returned, and refuse it: nothing would await it.

    :raises StepResultError: it is one
    """
    if inspect.iscoroutine(value):
        value.close()
        raise StepResultError(
            f"{what} returned a coroutine, which has not run: the decorated function is not "
            "async, but what it calls is. If a decorator below is the reason, put it on top, or "
            "make its wrapper `async def` and await the call in it",
            "$",
        )


def _no_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Those of a step that is begun by hand are not known."""


class Stored(Struct):
    """The outcome that the log already has for a call."""

    step_id: str
    result: Any
