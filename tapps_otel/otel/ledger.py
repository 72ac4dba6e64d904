"""What each collector has confirmed of a run's spans: the file ``<workflow_id>.ledger``.

Only added to, one JSON object a line, in two forms. ``{"to": destination, "spans": {span_id:
digest}}``: these spans, with this content. ``{"to": destination, "log": file, "seq": N, "sha":
S}``: every span that ended in this log up to line N, whose sha is S.

The ledger saves work and keeps spans from standing twice where a store does not see that two are
the same. It is not needed for anything else: a line that a crash tore is passed over, and what it
told of is sent once more, with identical content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.log import files as _files
from tapps_otel.log.reader import lines

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Ledger"]

_A_LINE: Final = 1000  # spans
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


class Ledger:
    """What one destination has confirmed.

    :param destination: its name, see :class:`tapps_otel.otel.client.Destination`
    :ivar spans: digests by span id
    :ivar marks: by log, up to which line everything was confirmed, as ``(seq, sha)``
    """

    def __init__(self, path: Path, destination: str) -> None:
        self.path = path
        self._destination = destination
        self.spans: dict[str, str] = {}
        self.marks: dict[str, tuple[int, str]] = {}

    def read(self) -> Ledger:
        """Take in what the file says; where there is none, nothing was confirmed.

        :raises OSError: it cannot be read
        """
        try:
            with _files.system().open_read(self.path) as file:
                for line in lines(file):
                    self._take(line)
        except FileNotFoundError:
            pass
        return self

    def _take(self, line: bytes) -> None:
        try:
            entry = _decoder.decode(line)
        except (ValueError, RecursionError):  # torn by a crash, or anybody's
            return
        match entry:
            case {"to": self._destination, "spans": dict(spans)}:
                self.spans.update(
                    (key, value) for key, value in spans.items() if isinstance(value, str)
                )
            case {"to": self._destination, "log": str(log), "seq": int(seq), "sha": str(sha)}:
                if seq >= self.marks.get(log, (0, ""))[0]:
                    self.marks[log] = (seq, sha)

    def confirm(self, spans: dict[str, str]) -> None:
        """Note spans as confirmed.

        :raises OSError: the file cannot be written
        """
        self.spans.update(spans)
        pairs = list(spans.items())
        for start in range(0, len(pairs), _A_LINE):
            part = dict(pairs[start : start + _A_LINE])
            self._add({"to": self._destination, "spans": part})

    def mark(self, log: str, seq: int, sha: str) -> None:
        """Note every span of a log up to this line as confirmed.

        :raises OSError: the file cannot be written
        """
        self.marks[log] = (seq, sha)
        self._add({"to": self._destination, "log": log, "seq": seq, "sha": sha})

    def _add(self, entry: dict[str, Any]) -> None:
        files = _files.system()
        descriptor = files.open_append(self.path, create=True)
        try:
            line = _encoder.encode(entry) + b"\n"
            # Whoever wrote last may have been killed in the middle of a line.
            size = files.size(descriptor)
            if size and files.read_at(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            files.write(descriptor, line)
        finally:
            files.close(descriptor)
