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

    def prepare_workers(self, prepare: Callable[[], None]) -> None:
        """Have each process call this before the initializer that the pool was given."""
        pool: Any = self.executor
        if getattr(pool, "_initializer", _begin) is not _begin:
            pool._initargs = (prepare, pool._initializer, pool._initargs)  # noqa: SLF001
            pool._initializer = _begin  # noqa: SLF001

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

    def _make(self) -> Executor | None:
        home = import_module(type(self.executor).__module__)  # joblib has a copy of its own
        made: Executor = home.get_reusable_executor(max_workers=self.workers())
        return made


def _begin(
    prepare: Callable[[], None], initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]
) -> None:
    """Begin a worker."""
    prepare()
    if initializer is not None:
        initializer(*initargs)
