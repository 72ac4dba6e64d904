"""The engines that steps can be submitted to: executors whose workers may be other processes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from tapps_otel.engines.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

__all__ = ["Engine", "engine_of"]

# By the class of the executor: what is known of it. An engine is not imported to look for it.
_KNOWN: Final = {
    "concurrent.futures.process.ProcessPoolExecutor": ("process_pool", "ProcessPool"),
    "loky.reusable_executor._ReusablePoolExecutor": ("process_pool", "Loky"),
    "distributed.cfexecutor.ClientExecutor": ("clusters", "Dask"),
    "tapps_otel.engines.ray.RayExecutor": ("clusters", "Ray"),
}


def engine_of(executor: Executor, renew: Callable[[], Executor] | None = None) -> Engine:
    """Return the engine of an executor.

    :param renew: makes an executor in place of one that is broken
    """
    for base in type(executor).__mro__:
        known = _KNOWN.get(f"{base.__module__}.{base.__qualname__}")
        if known is not None:
            module, name = known
            kind = getattr(import_module(f"{__name__}.{module}"), name)
            return cast("Engine", kind(executor, renew))
    return Engine(executor, renew)
