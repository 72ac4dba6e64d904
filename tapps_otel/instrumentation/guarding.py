"""Between an executor and what watches it: whatever goes wrong on our side stays there.

Every hook is called through :class:`Guard`, so that a mistake in one costs the log, never the run;
what the watched function gives or raises passes unchanged. Inside, :func:`guarded` keeps what can
fail by itself from costing more than that.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import LogWriteError, TappsError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

__all__ = ["Guard", "Original", "Wrapper", "guarded"]

_log = logging.getLogger("tapps_otel")
_said: set[str] = set()


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Let nothing of ours out: it is logged, the first time for each ``what`` with its place."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the executor goes on
        known = isinstance(error, TappsError) or what in _said
        _said.add(what)
        _log.error("%s: %s: %s", what, type(error).__name__, error, exc_info=not known)


class Original:
    """The watched function, as a hook's wrapper calls it, at most once; it notes how that went.

    :ivar function: bound to its object
    """

    __slots__ = ("_called", "_error", "_result", "function")

    def __init__(self, function: Any) -> None:
        self.function = function
        self._called = False
        self._result: Any = None
        self._error: BaseException | None = None

    @property
    def is_async(self) -> bool:
        """Whether it is declared so; another one may give a coroutine, too."""
        return inspect.iscoroutinefunction(self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it; a coroutine that it gives is still to be awaited."""
        self._called = True
        try:
            result = self.function(*args, **kwargs)
        except BaseException as error:
            self._error = error
            raise
        self._result = self._await(result) if inspect.iscoroutine(result) else result
        return self._result

    async def _await(self, made: Coroutine[Any, Any, Any]) -> Any:
        try:
            self._result = await made
        except BaseException as error:
            self._error = error
            raise
        return self._result

    def passes(self, error: BaseException) -> bool:
        """Whether this is to reach the caller: it came from the function, or is no mistake."""
        known, self._error = self._error, None  # its traceback leads here: no cycle is to stay
        if error is known or isinstance(error, LogWriteError) or not isinstance(error, Exception):
            return True
        self._error = known
        return False

    def outcome(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What it gave or raised; it is called, if the wrapper did not come to that."""
        if not self._called:
            return self(*args, **kwargs)
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error


# What watches a call: the original, the object that it is bound to, arguments.
Wrapper = Callable[[Original, Any, tuple[Any, ...], dict[str, Any]], Any]


class Guard:
    """Called in place of a watched function: calls the hook's wrapper, and contains its failures.

    If the wrapper fails, the function is called as without us. ``LogWriteError`` passes, by which
    a user asks that nothing runs unlogged.

    :ivar on: while it is ``False``, the function is called and nothing else

    :param name: of the hook
    """

    __slots__ = ("_name", "_wrapper", "on")

    def __init__(self, name: str, wrapper: Wrapper) -> None:
        self._name, self._wrapper = name, wrapper
        self.on = True

    def __call__(
        self, function: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call the function, watched; wrapt gives it bound to its object."""
        if not self.on:
            return function(*args, **kwargs)
        original = Original(function)
        try:
            made = self._wrapper(original, instance, args, kwargs)
        except BaseException as error:
            if original.passes(error):
                raise
            _say(self._name, error)
        else:
            if inspect.iscoroutine(made):
                return _guard_async(self._name, made, original, args, kwargs)
            return made
        return original.outcome(args, kwargs)


async def _guard_async(
    name: str,
    made: Coroutine[Any, Any, Any],
    original: Original,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    try:
        return await made
    except BaseException as error:
        if original.passes(error):
            raise
        _say(name, error)
    outcome = original.outcome(args, kwargs)
    return await outcome if inspect.iscoroutine(outcome) else outcome


def _say(name: str, error: BaseException) -> None:
    """Once for each hook: a mistake there is made in every call."""
    if name not in _said:
        _said.add(name)
        _log.error(
            "what %s does is not logged: %s: %s", name, type(error).__name__, error, exc_info=True
        )
