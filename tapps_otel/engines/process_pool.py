"""What is known of pools of processes: that of ``concurrent.futures``, and loky's.

The first has no public access to what it was made with, which one in its place needs.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tapps_otel.engines.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["ProcessPool"]


class ProcessPool(Engine):
    """A pool of processes of this machine."""

    owns_workers = True
    may_not_begin = True

    def prepare_workers(self, prepare: Callable[[], None]) -> None:
        """Have each process call this before the initializer that the pool was given."""
        pool: Any = self.executor
        if getattr(pool, "_initializer", _begin) is not _begin:
            pool._initargs = (prepare, pool._initializer, pool._initargs)  # noqa: SLF001
            pool._initializer = _begin  # noqa: SLF001

    def is_shut_down(self) -> bool:
        """Whether the block of its ``with`` has ended, or the program has shut it down."""
        pool: Any = self.executor
        return bool(pool._shutdown_thread and not pool._broken)  # noqa: SLF001 - no other name

    def _make(self) -> Executor | None:
        if type(self.executor) is not ProcessPoolExecutor:
            return None
        old: Any = self.executor
        return ProcessPoolExecutor(
            old._max_workers,  # noqa: SLF001
            mp_context=old._mp_context,  # noqa: SLF001
            initializer=old._initializer,  # noqa: SLF001
            initargs=old._initargs,  # noqa: SLF001
            max_tasks_per_child=old._max_tasks_per_child,  # noqa: SLF001
        )


class Loky(Engine):
    """A pool of loky: ``get_reusable_executor()``."""

    owns_workers = True
    may_not_begin = True

    def __init__(self, executor: Executor, renew: Callable[[], Executor] | None = None) -> None:
        super().__init__(executor, renew)
        self._options = self._find_options()

    def _find_options(self) -> dict[str, Any] | None:
        """What the pool was made with; ``None`` if that is not known.

        The pool does not keep all of it. Its module does, for the last pool that this thread made.
        """
        home: Any = import_module(type(self.executor).__module__)  # joblib has a copy of its own
        storage = getattr(home, "_executor_storage", None)
        if storage is None or storage.executor is not self.executor:
            return None
        found: dict[str, Any] = storage.executor_kwargs
        return found

    def _make(self) -> Executor | None:
        if self._options is None:
            return None
        home = import_module(type(self.executor).__module__)
        options = {**self._options, "max_workers": self.workers()}
        made: Executor = home.get_reusable_executor(**options)
        return made


def _begin(
    prepare: Callable[[], None], initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]
) -> None:
    """Begin a worker."""
    prepare()
    if initializer is not None:
        initializer(*initargs)
