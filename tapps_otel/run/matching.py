"""Matching: which record of the log a call takes, by the rules of resume. Pure.

Content first: the first unclaimed record of the scope with the same name and inputs (or key). For
a call that matches none, the guard looks for a record with something to lose in whose place it is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.past.fold import StepHistory
    from tapps_otel.past.plan import Past

__all__ = ["Matcher"]

_Content = tuple[str, str | None, str | None]  # name, key, digest


class Matcher:
    """The records that one attempt of a scope may take.

    A retry has no guard for the calls of the try before: their records are no longer due.

    :ivar fresh: whether the scope has no past at all
    """

    def __init__(self, past: Past | None) -> None:
        self.fresh = past is None
        self._scope = None if past is None else past.scope
        self._used = {} if past is None else past.used
        # Most runs make the same calls again, in the same order. As long as they do, the next
        # record is always the first of these, and nothing is looked up.
        self._ahead = deque(() if past is None else past.records)
        # From the first call that differs on: the unclaimed records by their places, and by their
        # content (the last one first: they are taken from the end).
        self._unclaimed: dict[str, StepHistory] | None = None
        self._by_content: dict[_Content, list[StepHistory]] = {}
        self._by_definition: dict[tuple[_Content, str | None], list[StepHistory]] = {}
        self._by_order: dict[tuple[str, int], list[StepHistory]] | None = None

    def claim(
        self, name: str, digest: str | None, key: str | None, definition: str | None = None
    ) -> StepHistory | None:
        """Take the first unclaimed record with this content; ``None`` when there is none.

        :param definition: of the function: records of the same one are taken first
        """
        if self._ahead:
            record = self._ahead[0]
            same = record.key == key and (key is not None or record.inputs_digest == digest)
            if same and record.name == name and record.definition == definition:
                return self._ahead.popleft()
        content = name, key, None if key is not None else digest
        unclaimed = self._look_up()
        for records in (
            self._by_definition.get((content, definition)),
            self._by_content.get(content),
        ):
            while records:
                record = records.pop()
                if unclaimed.pop(record.step_id, None) is not None:
                    return record
        return None

    def claim_id(self, step_id: str) -> StepHistory | None:
        """Take the record at this place."""
        return self._look_up().pop(step_id, None)

    def _look_up(self) -> dict[str, StepHistory]:
        """The unclaimed records by their places."""
        unclaimed = self._unclaimed
        if unclaimed is None:
            unclaimed = self._unclaimed = {record.step_id: record for record in self._ahead}
            for record in reversed(self._ahead):
                digest = None if record.key is not None else record.inputs_digest
                content = record.name, record.key, digest
                self._by_content.setdefault(content, []).append(record)
                self._by_definition.setdefault((content, record.definition), []).append(record)
            self._ahead.clear()
        return unclaimed

    def guard(
        self, name: str, order: int, loses: Callable[[StepHistory], str | None]
    ) -> tuple[StepHistory, str] | None:
        """Check an ordered call without key that matched no record.

        :param loses: what would be lost if this record were passed over, ``None`` for nothing
        :returns: the record in whose place the call is, and what would be lost
        """
        unclaimed = self._look_up()
        if not unclaimed:
            return None
        if self._by_order is None:
            self._by_order = {}
            for record in unclaimed.values():
                if record.last.order is not None and record.key is None:
                    self._by_order.setdefault((record.name, record.last.order), []).append(record)
        for record in self._by_order.get((name, order), ()):
            loss = loses(record) if record.step_id in unclaimed else None
            if loss is not None and self._due(record):
                return record, loss
        return None

    def next_number(self, name: str) -> int:
        """A number that no step of this name in this scope has had."""
        number = self._used[name] = self._used.get(name, 0) + 1
        return number

    def unasked(self) -> Iterator[StepHistory]:
        """Completed records that are due, and that no call took."""
        for record in self._look_up().values():
            if record.status == "completed" and self._due(record):
                yield record

    def _due(self, record: StepHistory) -> bool:
        return self._scope is None or self._scope.due(record)
