"""Engines with two workers on this machine, for a demonstration and for tests."""

from __future__ import annotations

from concurrent.futures import Executor, ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Final

__all__ = ["NAMES", "how_to_install", "start"]

NAMES: Final = ("pool", "dask", "ray")
_WORKERS: Final = 2
_PACKAGES: Final = {"dask": "distributed", "ray": "ray"}


def how_to_install(name: str) -> str | None:
    """Return the command that installs what an engine needs; ``None`` if it is there."""
    package = _PACKAGES.get(name)
    is_there = package is None or find_spec(package) is not None
    return None if is_there else f"pip install {package}"


def start(name: str) -> Executor:
    """Start an engine.

    :param name: one of ``NAMES``
    :raises ImportError: it is not installed
    """
    if name == "dask":
        from distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=_WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        )
        found: Executor = Client(cluster).get_executor(pure=False)
        return found
    if name == "ray":
        import ray

        from tapps_otel.engines.ray import RayExecutor

        ray.init(num_cpus=_WORKERS, include_dashboard=False, log_to_driver=False)
        return RayExecutor(num_cpus=1)
    return ProcessPoolExecutor(_WORKERS, mp_context=get_context("spawn"))
