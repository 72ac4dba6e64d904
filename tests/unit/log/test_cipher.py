"""Events that are encrypted before they are written: which of them wait, and which never can."""

from __future__ import annotations

from pathlib import Path

from logs import ID, event, start
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.cipher import Cipher
from tapps_otel.log.reader import check
from tapps_otel.log.writer import LogWriter


class Swapping:
    """A codec that can be told to fail."""

    key_id = "swap"
    failing = False

    def encode(self, data: bytes, context: bytes) -> bytes:
        if self.failing:
            raise ConnectionError("no key service")
        return data[::-1]

    def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
        return data[::-1]


def test_an_event_that_has_no_form_as_json_is_counted_and_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / f"{ID}.jsonl"
    cipher = Cipher(Blobs(tmp_path / f"{ID}.blobs", codec=Swapping()))
    writer = LogWriter(path, ID, cipher=cipher)
    writer.append(start())

    writer.append(event("step_fail", error={"type": "E", "args": [object()]}))
    seq = writer.append(event("step_finish"))

    assert seq is not None
    assert writer.failure is None
    writer.close()
    assert check(path).ok


def test_a_failing_codec_is_not_asked_for_each_event(tmp_path: Path) -> None:
    class Counting(Swapping):
        calls = 0

        def encode(self, data: bytes, context: bytes) -> bytes:
            self.calls += 1
            return super().encode(data, context)

    codec = Counting()
    path = tmp_path / f"{ID}.jsonl"
    cipher = Cipher(Blobs(tmp_path / f"{ID}.blobs", codec=codec))
    writer = LogWriter(path, ID, cipher=cipher)
    writer.append(start())
    codec.failing, codec.calls = True, 0

    for _ in range(100):
        writer.append(event("step_fail", error={"type": "E", "args": [1]}))

    assert codec.calls < 100
    codec.failing = False
    writer.close()
    assert writer.seq == 101
    assert check(path).ok
