"""What each collector has confirmed of a run's spans: the file ``<workflow_id>.ledger``.

Only added to, one JSON object a line, in three forms. ``{"to": destination, "spans": {span_id:
digest}}``: these spans, with this content. ``{"to": destination, "log": file, "seq": N, "sha":
S}``: every span that ended in this log up to line N, whose sha is S. ``{"to": destination, "whole":
file, "seq": N, "sha": S, "spans": n}``: this log ended with line N, and the collector has all n
spans that it told of then, those that were cut short too.

The ledger saves work and keeps spans from standing twice where a store does not see that two are
the same. It is not needed for anything else: a line that a crash tore is passed over, and what it
told of is sent once more, with identical content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tapps_otel.log import files as _files
from tapps_otel.log.reader import lines
from tapps_otel.otel.replay.digests import Digests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Ledger", "Whole"]

_A_LINE: Final = 1000  # spans
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class Whole(NamedTuple):
    """A log's last line, when a collector had confirmed all that the log told of.

    :ivar sha: of that line, 64 hex digits
    :ivar spans: how many there were
    """

    seq: int
    sha: str
    spans: int


class Ledger:
    """What one destination has confirmed.

    :param destination: its name, see :class:`tapps_otel.otel.transport.client.Destination`
    :ivar marks: by log, up to which line everything was confirmed, as ``(seq, sha)``
    :ivar wholes: by log, where it ended when all of it was confirmed
    """

    def __init__(self, path: Path, destination: str) -> None:
        self.path = path
        # Environment variables may hold bytes that are no text.
        self._destination = destination.encode(errors="backslashreplace").decode()
        self.marks: dict[str, tuple[int, str]] = {}
        self.wholes: dict[str, Whole] = {}

    def read(self) -> Ledger:
        """Take in what the file says of logs; where there is none, nothing was confirmed.

        :raises OSError: it cannot be read
        """
        for entry in self._entries():
            match entry:
                case {"log": str(log), "seq": int(seq), "sha": str(sha)}:
                    if seq >= self.marks.get(log, (0, ""))[0]:
                        self.marks[log] = (seq, sha)
                case {"whole": str(log), "seq": int(seq), "sha": str(sha), "spans": int(spans)}:
                    self.wholes[log] = Whole(seq, sha, spans)
        return self

    def spans(self) -> Digests:
        """The spans that the file names, each with the digest that it names last.

        :raises OSError: it cannot be read
        """
        found = Digests()
        for entry in self._entries():
            match entry:
                case {"spans": dict(spans)}:
                    found.update(spans)
        return found

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            with _files.system().open_read(self.path) as file:
                for line in lines(file):
                    try:
                        entry = _decoder.decode(line)
                    except (ValueError, RecursionError):  # torn by a crash, or anybody's
                        continue
                    if entry.get("to") == self._destination:
                        yield entry
        except FileNotFoundError:
            pass

    def confirm(self, spans: dict[str, str]) -> None:
        """Note spans as confirmed, by their digests.

        :raises OSError: the file cannot be written
        """
        pairs = list(spans.items())
        for start in range(0, len(pairs), _A_LINE):
            self._add({"spans": dict(pairs[start : start + _A_LINE])})

    def mark(self, log: str, seq: int, sha: str) -> None:
        """Note every span of a log up to this line as confirmed.

        :raises OSError: the file cannot be written
        """
        self._add({"log": log, "seq": seq, "sha": sha})

    def close(self, log: str, whole: Whole) -> None:
        """Note all that a log tells of as confirmed.

        :raises OSError: the file cannot be written
        """
        self._add({"whole": log, **whole._asdict()})

    def _add(self, entry: dict[str, Any]) -> None:
        files = _files.system()
        descriptor = files.open_append(self.path, create=True)
        try:
            line = _encoder.encode({"to": self._destination, **entry}) + b"\n"
            # Whoever wrote last may have been killed in the middle of a line.
            size = files.size(descriptor)
            if size and files.read_at(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            files.write(descriptor, line)
        finally:
            files.close(descriptor)
