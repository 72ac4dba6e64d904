"""``bind``: functions and executors that belong to the scope in which they were bound."""

from __future__ import annotations

from concurrent.futures import Executor
from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.run.remote.executor import BoundExecutor

__all__ = ["bind"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def bind(
    executor: Executor,
    /,
    *,
    at_once: int | None = None,
    renew: Callable[[], Executor] | None = None,
) -> BoundExecutor: ...
@overload
def bind(fn: Callable[P, R], /) -> Callable[P, R]: ...
def bind(
    what: Any,
    /,
    *,
    at_once: int | None = None,
    renew: Callable[[], Executor] | None = None,
) -> Any:
    """Bind a function, or an executor, to the current scope.

    A *function*: threads that call it call steps of this scope. ``pool.submit(bind(fn), ...)``.

    An *executor* of ``concurrent.futures``, whose workers may be processes or other machines: the
    steps that are submitted to it are steps of the run, as if they were called here::

        with bind(ProcessPoolExecutor(8)) as pool:
            drafts = list(pool.map(draft, pages))

    Other functions are submitted as they are. Leaving the block by an exception cancels what is
    queued; in any case it waits for what has started, and shuts the executor down.

    :param at_once: how many steps the executor has at the same time, the rest waits here and has
        not started; by default, as many as it has workers
    :param renew: makes an executor in place of one that is broken; a ``ProcessPoolExecutor`` needs
        none
    :raises TypeError: it is neither; a function with options of executors
    :raises ValueError: ``at_once`` is below 1
    """
    if isinstance(what, Executor):
        from tapps_otel.run.remote.executor import BoundExecutor  # heavy: most programs need none

        return BoundExecutor(what, at_once=at_once, renew=renew)
    if at_once is not None or renew is not None or not callable(what):
        msg = (
            f"bind({what!r:.80}): expected a function, or an executor of concurrent.futures; "
            "at_once and renew are for executors"
        )
        raise TypeError(msg)
    return _bind_function(what)


def _bind_function(fn: Callable[P, R]) -> Callable[P, R]:
    context = copy_context()

    @wraps(fn)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        # A context can be entered once at a time, and a pool runs many calls.
        return context.copy().run(fn, *args, **kwargs)

    return bound
