"""Keeps failures of the instrumentation away from the executor.

Every hook is called by a :class:`Guard`, so that a mistake in a hook costs the log and never the
run: what the wrapped function returns or raises passes unchanged. Inside the hooks, :func:`guarded`
limits what a single failure costs.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple

from tapps_otel.errors import DecryptionError, LogWriteError, RunConflictError, TappsError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractContextManager

__all__ = ["Guard", "GuardedContext", "Original", "Wrapper", "guarded"]

_log = logging.getLogger("tapps_otel")
_logged: set[str] = set()


class guarded:  # noqa: N801 - it is used as a function, as those of contextlib are
    """A context that logs an exception instead of raising it.

    A mistake of this package is logged with its traceback, once for each ``what``. A class, because
    a generator would cost each step more.

    :param what: what the failure costs, as the log message puts it
    :param refuses: the block may ask for a step not to run: ``LogWriteError`` is raised
    :param passes: exceptions of these classes are raised
    """

    __slots__ = ("_passes", "_refuses", "_what")

    def __init__(
        self, what: str, *, refuses: bool = False, passes: tuple[type[Exception], ...] = ()
    ) -> None:
        self._what, self._refuses, self._passes = what, refuses, passes

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception) or isinstance(error, self._passes):
            return False
        if self._refuses and isinstance(error, LogWriteError):
            return False
        _log_failure(self._what, error)
        return True


def _log_failure(what: str, error: Exception) -> None:
    shown = error if not isinstance(error, TappsError) and what not in _logged else None
    _logged.add(what)
    _log.error("%s: %s: %s", what, type(error).__name__, error, exc_info=shown)


class GuardedContext:
    """A context that is left as it is entered, and neither of which can fail for its block.

    :param make: makes the context
    """

    __slots__ = ("_entered", "_make")

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        try:
            context = self._make()
            context.__enter__()
            self._entered = context
        except Exception as error:  # noqa: BLE001 - whatever it is, the block is to run
            _log_failure("library spans are not under their run or step", error)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._entered is not None:
            try:
                self._entered.__exit__(None, None, None)
            except Exception as failure:  # noqa: BLE001
                _log_failure("a run or step stays current", failure)


class Kind(NamedTuple):
    """What a call of a function does."""

    is_async: bool
    is_generator: bool


class Original:
    """The wrapped function, for a wrapper to call at most once; it remembers the outcome.

    :ivar function: bound to its object
    """

    _called = False
    _result: Any = None
    _error: BaseException | None = None

    def __init__(self, function: Any, guard: Guard) -> None:
        self.function, self._guard = function, guard

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function; a plain one may return a coroutine, too."""
        return self._guard.kind_of(self.function).is_async

    @property
    def is_generator(self) -> bool:
        """Whether a call of it only makes a generator, sync or async."""
        return self._guard.kind_of(self.function).is_generator

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it; a coroutine that it returns is still to be awaited."""
        self._called = True
        try:
            result = self.function(*args, **kwargs)
        except BaseException as error:
            self._error = error
            raise
        self._result = self._await(result) if isinstance(result, CoroutineType) else result
        return self._result

    async def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            self._result = await coroutine
        except BaseException as error:
            self._error = error
            raise
        return self._result

    def raises(self, error: BaseException) -> bool:
        """Whether the caller must see this exception of a wrapper.

        It must if the function raised it, and if it is no mistake of a wrapper: ``LogWriteError``
        asks for the step not to run, ``RunConflictError`` and ``DecryptionError`` for the run not
        to be resumed, and what is no ``Exception`` stops the program.
        """
        own, self._error = self._error, None  # its traceback refers to this object: a cycle
        asks = isinstance(error, LogWriteError | RunConflictError | DecryptionError)
        if error is own or asks or not isinstance(error, Exception):
            return True
        self._error = own
        return False

    def outcome(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return or raise what the function did; call it, if the wrapper has not."""
        if not self._called:
            return self(*args, **kwargs)
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error


# Called in place of a function, with: the function, the object it is bound to, its arguments.
Wrapper = Callable[[Original, Any, tuple[Any, ...], dict[str, Any]], Any]


class Guard:
    """What wrapt calls in place of a hooked function. Calls the wrapper and contains its failures.

    Where the wrapper fails, the function is called as if it were not hooked.

    :ivar on: while this is ``False``, calls go directly to the function

    :param name: of the hook, for the log message
    """

    __slots__ = ("_kind", "_name", "_wrapper", "on")

    def __init__(self, name: str, wrapper: Wrapper) -> None:
        self._name, self._wrapper = name, wrapper
        self._kind: Kind | None = None
        self.on = True

    def __call__(
        self, function: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make the call through the wrapper. The signature is wrapt's."""
        if not self.on:
            return function(*args, **kwargs)
        original = Original(function, self)
        try:
            result = self._wrapper(original, instance, args, kwargs)
        except BaseException as error:
            if original.raises(error):
                raise
            self._log_failure(error)
        else:
            if isinstance(result, CoroutineType):
                return self._await(result, original, args, kwargs)
            return result
        # Not in the handler: the function's own exception must not get the failure as its context.
        return original.outcome(args, kwargs)

    def kind_of(self, function: Any) -> Kind:
        """What kind of function is wrapped: found out once, if a wrapper asks."""
        if self._kind is None:
            is_generator = inspect.isgeneratorfunction(function)
            self._kind = Kind(
                inspect.iscoroutinefunction(function),
                is_generator or inspect.isasyncgenfunction(function),
            )
        return self._kind

    async def _await(
        self,
        coroutine: Coroutine[Any, Any, Any],
        original: Original,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            return await coroutine
        except BaseException as error:
            if original.raises(error):
                raise
            self._log_failure(error)
        outcome = original.outcome(args, kwargs)
        return await outcome if isinstance(outcome, CoroutineType) else outcome

    def _log_failure(self, error: BaseException) -> None:
        """Log it once for each hook: a mistake repeats itself in every call."""
        if self._name not in _logged:
            _logged.add(self._name)
            _log.error(
                "calls of %s are not logged: %s: %s",
                self._name,
                type(error).__name__,
                error,
                exc_info=True,
            )
