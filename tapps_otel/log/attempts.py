"""The attempts of a log: each starts once and ends once. Pure, and of bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

if TYPE_CHECKING:
    from tapps_otel.log.event import Event

__all__ = ["STEP_EVENTS", "Attempts"]

STEP_EVENTS: Final = frozenset({"step_start", "step_finish", "step_fail", "step_skip"})
_MOST: Final = 1 << 15  # attempts of a generation; the last two generations are known


class Attempts:
    """Finds a second start and a second end of an attempt, as no recorder writes them.

    Both come soon after the first one, if they come: of a long log, the last attempts are enough.
    An end without a start is accepted: a damaged part of the log may have had it.
    """

    __slots__ = ("_known", "_older")

    def __init__(self) -> None:
        # By the hash of step and attempt: the seq of its end, or that of its start, negative.
        self._known: dict[int, int] = {}
        self._older: dict[int, int] = {}

    def add(self, event: Event) -> str | None:
        """Take in a step's event; return what is wrong with it, which changes nothing."""
        kind = event.event_type
        if kind == "step_skip" and event.duration_ns is UNSET:
            return None  # an executor skips what has failed, or what it never started
        key = hash((event.step_id, event.attempt))
        seq = self._known.get(key) or self._older.get(key, 0)
        if kind == "step_start":
            if seq:
                return _twice(event, "started", abs(seq))
            self._note(key, -event.seq)
        else:
            if seq > 0:
                return _twice(event, "ended", seq)
            self._note(key, event.seq)
        return None

    def _note(self, key: int, seq: int) -> None:
        self._known[key] = seq
        if len(self._known) >= _MOST:
            self._known, self._older = {}, self._known


def _twice(event: Event, what: str, seq: int) -> str:
    return f"attempt {event.attempt} of step {event.step_id!r:.200} has {what} at seq {seq} already"
