"""Side logs: for spans of a run whose own log this process may not write.

There is one for each run of which this process captures spans, under a random name that no other
process uses, so that it needs no lease. It is an ordinary log, with a hash chain of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.log.writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapps_otel.log.home import Session
    from tapps_otel.log.store import Store
    from tapps_otel.otel.capture.event import Captured
    from tapps_otel.settings_types import Durability

__all__ = ["LARGEST", "SideLogs"]

_MOST_OPEN: Final = 64
LARGEST: Final = 64 << 20  # bytes; then another is started, so that old ones can be removed


class SideLogs:
    """The side logs that this process writes. For one thread at a time."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._open: OrderedDict[tuple[Any, str], _SideLog] = OrderedDict()

    def append(
        self, store: Store, workflow_id: str, spans: Sequence[Captured], durability: Durability
    ) -> None:
        """Write spans of a run, and sync once.

        :raises LogError: not all of them are written
        :raises OSError: a log cannot be created
        """
        key = (store.folder, workflow_id)
        log = self._open.get(key)
        if log is None or log.writer.size >= self._largest:
            self._close(key)
            path = store.new_side_path(workflow_id)
            session = None if store.home is None else store.home.take(path.stem)
            try:
                log = self._open[key] = _SideLog(
                    LogWriter(path, workflow_id, durability=durability, stop=True, home=session),
                    session,
                )
            except BaseException:
                if session is not None:
                    session.release()
                raise
        self._open.move_to_end(key)
        if len(self._open) > _MOST_OPEN:
            self._close(next(iter(self._open)))
        log.append(spans)

    def _close(self, key: tuple[Any, str]) -> None:
        log = self._open.pop(key, None)
        if log is not None:
            log.close()

    def close(self) -> None:
        """Close all of them."""
        for key in list(self._open):
            self._close(key)


class _SideLog:
    """A log and the resource that it named last, which later spans omit."""

    def __init__(self, writer: LogWriter, session: Session | None) -> None:
        self.writer, self._session = writer, session
        self._resource: tuple[dict[str, Any], str] | None = None

    def append(self, spans: Sequence[Captured]) -> None:
        for span in spans:
            known, self._resource = self._resource, None  # unknown, if this one is lost
            self.writer.append(span.name_resource(known), sync=span is spans[-1])
            self._resource = span.resource

    def close(self) -> None:
        try:
            self.writer.close()
        finally:
            if self._session is not None:
                self._session.release()
