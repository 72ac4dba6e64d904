"""Which of a process's writers has a library's span written: the first that claims it.

A program may have an exporter and a processor, or two of one kind. The logs have each start and
each end once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.otel.run_registry import KnownRun

__all__ = ["claim", "release"]

Part = Literal["start", "end"]
_Key = tuple[str, int, Part]  # a run, as ids of a seeded generator come again in another

_MOST: Final = 1 << 14  # claims of a generation: many times what a batch processor queues
_older: dict[_Key, object] = {}
_newer: dict[_Key, object] = {}
_changing = threading.Lock()


def claim(run: KnownRun, span: ReadableSpan, part: Part = "end") -> bool:
    """Claim a span's start or end; whether it is the caller's to write."""
    key, mine = _key(run, span, part), object()
    if key in _older or _newer.setdefault(key, mine) is not mine:
        return False
    if len(_newer) > _MOST and _changing.acquire(blocking=False):
        try:
            _start_generation()
        finally:
            _changing.release()
    return True


def release(run: KnownRun, span: ReadableSpan, part: Part = "end") -> None:
    """Give a claim back: the span could not be written."""
    for claims in (_newer, _older):
        claims.pop(_key(run, span, part), None)


def _start_generation() -> None:
    global _older, _newer
    if len(_newer) > _MOST:  # not if another thread has done so meanwhile
        _older, _newer = _newer, {}


def _key(run: KnownRun, span: ReadableSpan, part: Part) -> _Key:
    return (run.workflow_id, span.context.span_id, part)
