"""Events that are encrypted before they are written: which of them wait, and which never can."""

from __future__ import annotations

from pathlib import Path

import independent_checker
from logs import ID, event, marks, start, writing
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.cipher import Cipher


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


def cipher(folder: Path, codec: Swapping) -> Cipher:
    return Cipher(Blobs(folder / f"{ID}.blobs", codec=codec))


def test_an_event_that_has_no_form_as_json_is_counted_and_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / f"{ID}.jsonl"
    with writing(path, cipher=cipher(tmp_path, Swapping())) as writer:
        writer.append(start())
        writer.append(event("step_start", 1))
        assert writer.append(event("step_fail", 1, error={"args": [object()]})) is None
        assert writer.failure is None
        writer.append(event("annotation", "next"))

    events = independent_checker.check(path)
    assert [one["event_type"] for one in events[2:]] == ["log_gap", "annotation"]
    assert marks(path)[-1] == "next"


def test_a_failing_codec_is_not_asked_for_each_event(tmp_path: Path) -> None:
    class Counting(Swapping):
        calls = 0

        def encode(self, data: bytes, context: bytes) -> bytes:
            self.calls += 1
            return super().encode(data, context)

    codec, path = Counting(), tmp_path / f"{ID}.jsonl"
    with writing(path, cipher=cipher(tmp_path, codec)) as writer:
        writer.append(start())
        codec.failing = True
        for number in range(200):
            writer.append(event("step_start", number + 1, inputs_digest="0" * 64))
        assert writer.failure is not None
        assert codec.calls < 100
        codec.failing = False

    found = independent_checker.check(path)
    assert [one.get("step_id") for one in found if one["event_type"] == "step_start"] == [
        f"draft#{number + 1}" for number in range(200)
    ]
