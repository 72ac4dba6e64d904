"""A log in a store, as its lines are read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.log.event import trailing_sha
from tapps_otel.log.home import NO_LINES, Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.postgres.connecting import Connection

__all__ = ["StoredLog"]

_HEAD: Final = "SELECT seq, bytes FROM tapps_otel.lines WHERE run = %s ORDER BY seq DESC LIMIT 1"
_LINE: Final = "SELECT bytes FROM tapps_otel.lines WHERE run = %s AND seq = %s"
_CONTENT: Final = (
    "SELECT string_agg(bytes, '' ORDER BY seq) FROM tapps_otel.lines"
    " WHERE run = %s AND seq BETWEEN %s AND %s"
)
_OLDER: Final = (
    "SELECT bytes FROM tapps_otel.lines WHERE run = %s AND seq BETWEEN %s AND %s ORDER BY seq DESC"
)
_BLOB: Final = "SELECT bytes FROM tapps_otel.blobs WHERE run = %s AND name = %s"
_SIZE: Final = "SELECT sum(octet_length(bytes)) FROM tapps_otel.lines WHERE run = %s"
_PAGE: Final = 512  # lines in memory


class StoredLog:
    """A log in a store, up to the line that was its last one when it was looked at."""

    def __init__(self, store: str, name: str, connection: Connection, run: int) -> None:
        self.store, self.name, self._connection, self._run = store, name, connection, run
        found = self._rows(_HEAD)
        self.head = Head(found[0][0], trailing_sha(found[0][1]) or b"") if found else NO_LINES

    def sha(self, seq: int) -> bytes | None:
        """Return the ``sha`` of a line; ``None`` if it has no such line."""
        found = self._rows(_LINE, seq)
        return trailing_sha(found[0][0]) if found else None

    def content(self, after: int) -> Iterator[bytes]:
        """Yield the bytes after the line of this ``seq``, in pieces of several lines."""
        for first in range(after + 1, self.head.seq + 1, _PAGE):
            last = min(first + _PAGE - 1, self.head.seq)
            for (lines,) in self._rows(_CONTENT, first, last):
                yield lines

    @property
    def size(self) -> int:
        """The number of its bytes."""
        return int(self._rows(_SIZE)[0][0] or 0)

    def first(self) -> bytes:
        """Return the first line, with damage that it declares."""
        return bytes(self._rows(_LINE, 1)[0][0])

    def older_lines(self, before: int) -> Iterator[bytes]:
        """Yield the lines before this ``seq``, the newest first, with damage that they declare."""
        for last in range(before - 1, 0, -_PAGE):
            for (line,) in self._rows(_OLDER, max(1, last - _PAGE + 1), last):
                yield line

    def blob(self, name: str) -> bytes | None:
        """Return a large value; ``None`` if it is not there."""
        found = self._rows(_BLOB, name)
        return found[0][0] if found else None

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, (self._run, *values), binary=True).fetchall()
