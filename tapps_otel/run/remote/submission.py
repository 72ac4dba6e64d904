"""A step that was submitted to an executor, and what the executor delivers for it."""

from __future__ import annotations

from concurrent.futures import CancelledError, InvalidStateError
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from contextvars import Context

    from tapps_otel.run.remote.attempt import RemoteAttempt

__all__ = ["Receipt", "Submission"]


# Structs, because their constructors are in C: every step makes one of each.
class Submission(Struct, eq=False):
    """A step that was submitted.

    :ivar attempt: its current try
    :ivar future: what its caller has
    :ivar data: the call, pickled
    :ivar modules: where a worker finds the modules of the call
    :ivar context: in which it was submitted
    :ivar failures: tries that have failed
    :ivar executor: that has its current try, or had the last one
    :ivar starter: the thread that starts it at the moment
    :ivar broken_with: how many other steps its executor had when it broke
    :ivar shared_breaks: how often its executor broke while it had other steps, too
    :ivar dispatch: what handles it until it is finished, and is kept alive for that
    """

    attempt: RemoteAttempt
    future: Future[Any]
    data: bytes
    modules: dict[str, str]
    context: Context
    failures: int = 0
    executor: Executor | None = None
    starter: int | None = None
    broken_with: int | None = None
    shared_breaks: int = 0
    dispatch: object = None

    @property
    def runs_alone(self) -> bool:
        """Whether it has to be known if it is this step that breaks its executor."""
        return self.shared_breaks > 1

    def return_to_caller(self, value: Any) -> None:
        """Let the caller get a result."""
        try:  # noqa: SIM105 - for speed: every step comes here
            self.future.set_result(value)
        except InvalidStateError:  # it has one
            pass

    def cancel(self) -> None:
        """Cancel the future of a step that no worker has."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()
        else:
            self.raise_in_caller(CancelledError())

    def raise_in_caller(self, error: BaseException) -> None:
        """Let the caller get an exception."""
        if not self.future.done():
            self.future.set_exception(error)


class Receipt(Struct, eq=False):
    """What an executor has delivered for a step.

    :ivar outcome: the worker's answer; otherwise what the executor raised
    """

    submission: Submission
    executor: Executor
    outcome: bytes | BaseException
