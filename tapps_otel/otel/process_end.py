"""The end of a process: when it flushes what it has to send.

Imported with the first step or workflow, so that its handler runs after those that a program
registers later: they may execute runs. OpenTelemetry is not needed for that.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

__all__ = ["flush_at_end", "may_vanish"]

# Their children leave by `os._exit`, which calls no handlers. They call the finalizers of these.
_FINALIZING: Final = ("multiprocessing.util", "billiard.util")
_LAST: Final = -100  # priority: after finalizers that others register
_flushes: Final[list[Callable[[], None]]] = []
_forked = False


def flush_at_end(flush: Callable[[], None]) -> None:
    """Call ``flush`` when this process ends, and when forked children of it do."""
    _flushes.append(flush)


def may_vanish() -> bool:
    """Whether this process may leave in a way that calls no handlers at all.

    It was forked, or started by ``multiprocessing``: pools kill such processes, Celery's and
    uvicorn's end themselves like that.
    """
    return _forked or _is_child()


def _end() -> None:
    for flush in _flushes:
        flush()


def _after_fork() -> None:
    global _forked  # noqa: PLW0603 - of the process
    _forked = True
    _watch_children()


def _watch_children() -> None:
    """Let children add the finalizer once they have dropped those of their parent."""
    for name in _FINALIZING:
        util = sys.modules.get(name)
        if util is not None:
            util.register_after_fork(_end, partial(_add_finalizer, util))


def _add_finalizer(util: Any, _: object = None) -> None:
    util.Finalize(None, _end, exitpriority=_LAST)


def _is_child() -> bool:
    """Whether ``multiprocessing`` executes its target in this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
_watch_children()
if _is_child():
    _add_finalizer(sys.modules["multiprocessing.util"])
