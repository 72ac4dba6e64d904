"""The runs that are open in this process, for steps that are called outside all of them."""

from __future__ import annotations

import logging
from threading import get_ident
from typing import TYPE_CHECKING
from weakref import ref

from tapps_otel.run.scope import OPEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.run.scope import Scope

__all__ = ["is_any_open", "note_closed", "note_open", "warn_of_call"]

_log = logging.getLogger("tapps_otel")

# The workflow's scope of each, and whether a warning named that run. A dict can be listed while
# other threads change it; it must not keep alive a run that its user dropped.
_open: dict[ref[Scope], bool] = {}


def note_open(root: Scope) -> None:
    """Note that a run is open."""
    _open[ref(root, lambda dead: _open.pop(dead, None) and None)] = False


def note_closed(root: Scope) -> None:
    """Note that a run is no longer open."""
    _open.pop(ref(root), None)


def is_any_open() -> bool:
    """Whether a run is open in this process."""
    return any(True for _ in _roots())


def _roots() -> Iterator[tuple[ref[Scope], Scope]]:
    for place in list(_open):
        root = place()
        if root is not None and root.state is OPEN and not root.run.detached:
            yield place, root


def warn_of_call(name: str, scope: Scope | None) -> None:
    """Log a warning if a step's plain call in this thread may be one of another thread's run.

    Each run is named by one warning.

    :param name: of the step
    :param scope: where it was called; it knows why its steps are plain calls
    """
    if scope is not None or not _open:
        return
    here = get_ident()
    unnamed = [
        (place, root) for place, root in _roots() if root.thread != here and not _open.get(place)
    ]
    if not unnamed:
        return
    _open.update((place, True) for place, _ in unnamed)
    runs = " and ".join(f"run {root.run.workflow_id!r}" for _, root in unnamed[:3])
    _log.warning(
        "step %r was called in a thread that belongs to no run, while %s was open: it is a plain "
        "call there, without a log, and runs again on resume. If it is a call of that run, start "
        "the thread's function with tapps_otel.bind: pool.submit(bind(function), ...)",
        name,
        runs,
    )
