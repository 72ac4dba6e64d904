"""What is fixed about the calls of a step, and what a call can come to without running. Pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import StepResultError
from tapps_otel.names import escape
from tapps_otel.run.policy import Policy
from tapps_otel.run.values import check_text, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.log.event import Event
    from tapps_otel.run.recorder import Run
    from tapps_otel.run.values import Signature

__all__ = ["Call", "Skipped", "Stored"]


class Skipped(BaseException):
    """Raised by ``skip()``; no ``except Exception`` of the user's catches it."""

    def __init__(self, reason: str, result: object) -> None:
        self.reason, self.result = reason, result
        super().__init__(reason)


class Call:
    """What is fixed about the calls of one step: made once, used by every call.

    :ivar definition: digest of the code behind it, 16 hex digits
    :ivar write_result: makes JSON of a result; raises :class:`StepResultError` if it cannot
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
    ) -> None:
        check_text(name, "the name of a step")
        for value, what in ((agent, "agent"), (action, "action")):
            if value is not None:
                check_text(value, f"{what} of step {name!r}")
        self.name, self.escaped = name, escape(name)
        self.agent, self.action, self.policy = agent, action, policy
        self.signature, self.definition = signature, definition
        self.write_result: Callable[[object], bytes] = (
            partial(_write_untyped, name) if signature is None else signature.result_json
        )

    def put_result(self, run: Run, event: Event, value: object) -> None:
        """Put what the step gave back into the event that ends it, if it is to be kept.

        :raises StepResultError: it cannot be stored
        """
        if self.policy.persist:
            run.store(event, self.write_result(value))
        else:
            event.result_omitted = "persist=False"

    def put_skip_result(self, run: Run, event: Event, value: object) -> None:
        """The same for a skip: ``None`` is a result whatever the annotation says."""
        run.store(event, b"null" if value is None else self.write_result(value))

    def read_result(self, data: bytes) -> Any:
        """A stored result as the function gave it back."""
        return from_json(data) if self.signature is None else self.signature.result_from_json(data)


def _write_untyped(name: str, value: object) -> bytes:
    try:
        return to_json(value)
    except TypeError as error:
        msg = f"result of step {name!r} cannot be stored: {error}"
        raise StepResultError(msg, str(error).partition(":")[0]) from None


class Stored:
    """The outcome that the log already has for a call."""

    __slots__ = ("result", "step_id")

    def __init__(self, step_id: str, result: Any) -> None:
        self.step_id, self.result = step_id, result
