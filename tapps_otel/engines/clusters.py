"""What is known of Dask and Ray: engines that may have workers on other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapps_otel.engines.engine import Engine

if TYPE_CHECKING:
    from tapps_otel.engines.ray import RayExecutor

__all__ = ["Dask", "Ray"]


class Dask(Engine):
    """The executor of a Dask client: ``Client(...).get_executor(pure=False)``."""

    scales = True
    _allowed: int | None = None  # failures of a call, once the scheduler was asked

    @property
    def _client(self) -> Any:
        return self.executor._client  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name

    @property
    def name(self) -> str:
        """Its name in the log."""
        return "dask"

    def workers(self) -> int:
        """Return how many threads the workers have that are there now."""
        return sum(self._client.nthreads().values()) or 1

    def why_lost(self) -> str | None:
        """Return that its client has lost the scheduler: a call might never be answered."""
        status = self._client.status
        return None if status == "running" else f"Dask's client has no scheduler ({status})"

    def why_not_once(self) -> str | None:
        """Return why it could execute one call twice: its scheduler may be told to."""
        try:
            if self._allowed is None:
                self._allowed = self._client.run_on_scheduler(_allowed_failures)
        except Exception as error:  # noqa: BLE001 - it may not import this package, or allow this
            why = f"whether Dask's scheduler repeats calls is not known ({error})"
        else:
            if self._allowed == 0:
                return None
            why = f"Dask's scheduler repeats a call whose worker died, up to {self._allowed} times"
        return f"{why}; start it with the setting distributed.scheduler.allowed-failures at 0"


def _allowed_failures(dask_scheduler: Any) -> int:
    return int(dask_scheduler.allowed_failures)


class Ray(Engine):
    """A :class:`~tapps_otel.engines.ray.RayExecutor`."""

    owns_workers = True  # a worker process belongs to one job
    scales = True
    executor: RayExecutor

    @property
    def name(self) -> str:
        """Its name in the log."""
        return "ray"

    def workers(self) -> int:
        """Return how many calls the cluster has room for."""
        return self.executor.workers()
