"""Spans in batches, as they are sent and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logs import forge
from tapps_otel.errors import LogDamagedError
from tapps_otel.log.store import Store
from tapps_otel.otel.send import batches
from tapps_otel.otel.source import Found, RunSpans


def spans(count: int) -> list[dict[str, Any]]:
    span = {"event_type": "span", "name": "GET", "trace_id": "4b" * 16, "otel": {}}
    return [{**span, "span_id": f"{n:016x}", "duration_ns": 1} for n in range(1, count + 1)]


def test_what_stands_before_damage_is_in_the_last_batch() -> None:
    path = forge(Path("logs"), "r", spans(9))
    path.write_bytes(path.read_bytes().replace(b'"seq":8', b'"seq":7'))
    made: list[list[Found]] = []
    with pytest.raises(LogDamagedError):
        made.extend(batches(RunSpans(Store(Path("logs")), "r"), 3))

    assert [[found.seq for found in batch] for batch in made] == [[1, 2, 3], [4, 5, 6], [7]]
