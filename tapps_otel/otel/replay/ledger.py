"""What collectors have confirmed of a run's spans: ``<workflow_id>.ledger``.

It is append-only, one JSON object a line, in four forms:

- ``{"to": destination, "spans": {span_id: digest}}``: these spans, with this content.
- ``{"to": destination, "log": file, "seq": N, "sha": S}``: every span that ended in this log up to
  line N, whose sha is S.
- ``{"to": destination, "whole": file, "seq": N, "sha": S, "spans": n}``: this log ended with line
  N, and the collector has all n spans that it had then, interrupted ones included.
- ``{"to": destination, "refused": span_id, "digest": D, "name": name, "reason": text}``: the
  collector refused this span by itself. It is an exception to later lines of the other forms, until
  one of the first form names it, or another of this form without a digest.

The ledger saves work, and duplicates in stores that do not recognize a span they have. Nothing else
depends on it: a line that a crash tore is ignored, and its spans are sent again with identical
content.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tapps_otel.log import files as _files
from tapps_otel.log.reader import lines
from tapps_otel.otel.replay.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Confirmed", "Ledger", "Refusal", "Whole", "destinations", "last_confirmed"]

_MOST_SPANS: Final = 1000  # in a line
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class Whole(NamedTuple):
    """A log's last line, when a collector had confirmed all spans of the log.

    :ivar sha: of that line, 64 hex digits
    :ivar spans: how many it had confirmed
    """

    seq: int
    sha: str
    spans: int


class Refusal(NamedTuple):
    """A span that a collector refused by itself.

    :ivar digest: of its content
    :ivar name: of the span
    :ivar reason: the collector's
    """

    digest: str
    name: str
    reason: str


class Confirmed(NamedTuple):
    """The line of a log up to which a collector had confirmed all spans.

    :ivar destination: the collector
    :ivar sha: of that line, 64 hex digits
    """

    destination: str
    seq: int
    sha: str


def last_confirmed(path: Path) -> dict[str, Confirmed]:
    """Read, for each log that a ledger names, the last line that a collector has confirmed.

    :raises OSError: the ledger cannot be read
    """
    found: dict[str, Confirmed] = {}
    for entry in _entries(path):
        match entry:
            case {"to": str(to), "seq": int(seq), "sha": str(sha), **rest}:
                log = rest.get("log", rest.get("whole"))
                if isinstance(log, str) and (log not in found or found[log].seq <= seq):
                    found[log] = Confirmed(to, seq, sha)
    return found


def destinations(path: Path) -> set[str]:
    """Read which collectors a ledger names; none if there is no ledger.

    :raises OSError: the ledger cannot be read
    """
    return {to for entry in _entries(path) if isinstance(to := entry.get("to"), str)}


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with _files.system().open_read(path) as file:
            for line in lines(file):
                with suppress(ValueError, RecursionError):  # torn, or of another program
                    yield _decoder.decode(line)
    except FileNotFoundError:
        pass


class Ledger:
    """What one destination has confirmed.

    :param destination: its :attr:`~tapps_otel.otel.transport.destination.Destination.name`
    :ivar marks: by log, up to which line everything was confirmed, as ``(seq, sha)``
    :ivar wholes: by log, where it ended when all of it was confirmed
    :ivar refused: by span id, what was refused and not confirmed since
    """

    def __init__(self, path: Path, destination: str) -> None:
        self.path = path
        # Environment variables may hold bytes that are not text.
        self._destination = destination.encode(errors="backslashreplace").decode()
        self.marks: dict[str, tuple[int, str]] = {}
        self.wholes: dict[str, Whole] = {}
        self.refused: dict[str, Refusal] = {}

    def read(self) -> Ledger:
        """Read what is confirmed of logs; without a file, nothing is.

        :raises OSError: it cannot be read
        """
        for entry in self._entries():
            match entry:
                case {"log": str(log), "seq": int(seq), "sha": str(sha)}:
                    if seq >= self.marks.get(log, (0, ""))[0]:
                        self.marks[log] = (seq, sha)
                case {"whole": str(log), "seq": int(seq), "sha": str(sha), "spans": int(spans)}:
                    self.wholes[log] = Whole(seq, sha, spans)
                case {"refused": str(span_id), "digest": None}:
                    self.refused.pop(span_id, None)
                case {"refused": str(span_id), "digest": str(digest), **more}:
                    name, reason = str(more.get("name", "")), str(more.get("reason", ""))
                    self.refused[span_id] = Refusal(digest, name, reason)
                case {"spans": dict(spans)}:
                    for span_id in self.refused.keys() & spans.keys():
                        del self.refused[span_id]
        return self

    def spans(self) -> Digests:
        """Read the spans that the file names, each with the last digest that it has.

        :raises OSError: it cannot be read
        """
        found = Digests()
        for entry in self._entries():
            match entry:
                case {"spans": dict(spans)}:
                    found.update(spans)
        return found

    def _entries(self) -> Iterator[dict[str, Any]]:
        for entry in _entries(self.path):
            if entry.get("to") == self._destination:
                yield entry

    def confirm(self, spans: dict[str, str]) -> None:
        """Note spans as confirmed, by their digests.

        :raises OSError: the file cannot be written
        """
        pairs = list(spans.items())
        for start in range(0, len(pairs), _MOST_SPANS):
            self._add({"spans": dict(pairs[start : start + _MOST_SPANS])})
        for span_id in self.refused.keys() & spans.keys():
            del self.refused[span_id]

    def refuse(self, span_id: str, refusal: Refusal) -> None:
        """Note a span as refused.

        :raises OSError: the file cannot be written
        """
        self._add({"refused": span_id, **refusal._asdict()})
        self.refused[span_id] = refusal

    def withdraw(self, span_id: str) -> None:
        """Note that a span which was refused is not to be sent any more.

        :raises OSError: the file cannot be written
        """
        self._add({"refused": span_id, "digest": None})
        self.refused.pop(span_id, None)

    def mark(self, log: str, seq: int, sha: str) -> None:
        """Note every span of a log up to this line as confirmed, but for those refused.

        :raises OSError: the file cannot be written
        """
        self._add({"log": log, "seq": seq, "sha": sha})

    def close(self, log: str, whole: Whole) -> None:
        """Note all spans of a log as confirmed, but for those refused.

        :raises OSError: the file cannot be written
        """
        self._add({"whole": log, **whole._asdict()})

    def _add(self, entry: dict[str, Any]) -> None:
        files = _files.system()
        descriptor = files.open_append(self.path, create=True)
        try:
            line = _encoder.encode({"to": self._destination, **entry}) + b"\n"
            # The last writer may have been killed in the middle of a line.
            size = files.size(descriptor)
            if size and files.read_at(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            files.write(descriptor, line)
        finally:
            files.close(descriptor)
