"""An executor that submits calls to Ray: ``bind(RayExecutor(num_cpus=1))``.

Ray has to be installed, and supports some versions of Python only: ``pip install ray``.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

try:
    import ray
except ImportError as error:
    msg = "RayExecutor needs Ray, which is not installed here: pip install ray"
    raise ImportError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RayExecutor"]

P = ParamSpec("P")
R = TypeVar("R")


class RayExecutor(Executor):
    """Submits calls to Ray as tasks, each executed once at most.

    Ray is initialized by ``ray.init()``, unless the program has done that.

    :param options: of the tasks, as ``.options()`` of Ray's remote functions takes them:
        ``num_cpus``, ``num_gpus``, ``resources``, ``runtime_env``, ...
    """

    def __init__(self, **options: Any) -> None:
        if not ray.is_initialized():
            ray.init()
        # A task that Ray repeats by itself would be an attempt that no log knows of.
        self._task = ray.remote(_call).options(**{**options, "max_retries": 0})
        self._cpus = float(options.get("num_cpus", 1) or 0)
        self._shut_down = False
        self._refs: set[Any] = set()

    def workers(self) -> int:
        """Return how many of its calls the cluster has processors for; one at least."""
        total = ray.cluster_resources().get("CPU", 1)
        return max(1, int(total / self._cpus)) if self._cpus else max(1, int(total))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit a call as a task.

        :raises RuntimeError: it was shut down
        """
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        ref = self._task.remote(fn, args, kwargs)
        future: Future[R] = ref.future()
        self._refs.add(ref)
        future.add_done_callback(lambda _: self._refs.discard(ref))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as Executor has it
        """Take no more calls. Ray itself stays as it is.

        :param wait: wait for the calls that were submitted
        :param cancel_futures: cancel those that have not begun
        """
        self._shut_down = True
        refs = list(self._refs)
        if cancel_futures:
            for ref in refs:
                ray.cancel(ref)
        if wait and refs:
            ray.wait(refs, num_returns=len(refs))


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)
