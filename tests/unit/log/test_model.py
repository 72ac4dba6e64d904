"""The public model of an event, and its schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from msgspec import UNSET
from pydantic import ValidationError

from logs import AT, ID, event, story, write
from tapps_otel.errors import LogDamagedError
from tapps_otel.log.event import Encrypted, Event, decode, encode, genesis, raw_json
from tapps_otel.log.model import WorkflowEvent, json_schema, read_model
from tapps_otel.log.reader import Checker

FULL: dict[str, Any] = {
    "wall_time": "2025-11-13T03:13:20.000000000Z",
    "trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": "c" * 16, "order": 1, "key": "k",
    "retry_in_ns": 5, "caused_by": ["draft"], "name": "n", "reason": "why", "question": "what?",
    "status": "failed", "error": {"type": "E", "message": "m"}, "artifacts": [{"name": "a"}],
    "inputs": raw_json({"a": 10**30}), "inputs_blob": "d" * 64, "inputs_digest": "e" * 64,
    "definition": None, "result": raw_json("\ud800"), "result_blob": "f" * 64,
    "result_omitted": "secret", "duration_ns": 7, "attributes": {"mark": [1, 2.5, None, "x"]},
    "otel": {"flags": 1}, "otel_blob": "0" * 64, "resource": {"r": 1}, "workflow": {"name": "w"},
    "process": {"pid": 1}, "origin": {"seq": 1}, "late": True, "damage": [(0, 1, "2" * 64)],
    "encrypted": Encrypted("key", b"ciphertext"), "answer_schema": {"type": "boolean"},
    "until": "2026-12-01T00:00:00.000000000Z", "answered": {"by": "me"},
    "unsynced": 1,
}  # fmt: skip


def line(**fields: Any) -> bytes:
    return encode(event("step_start", seq=1, **fields), genesis(ID))[0]


def test_the_model_has_the_fields_of_an_event_in_their_order_and_the_sha() -> None:
    assert [*Event.__struct_fields__, "sha"] == list(WorkflowEvent.model_fields)


def test_model_and_event_ask_for_the_same_fields() -> None:
    required = {name for name, field in WorkflowEvent.model_fields.items() if field.is_required()}
    always = {name for name in Event.__struct_fields__ if getattr(event("x"), name) is not UNSET}

    assert required == always | {"sha"}


def test_model_and_event_allow_null_in_the_same_fields() -> None:
    hints = get_type_hints(Event)
    schema = json_schema()["properties"]

    for name, hint in hints.items():
        takes_null = type(None) in getattr(hint, "__args__", ())
        says_null = {"type": "null"} in schema[name].get("anyOf", [])
        assert takes_null == says_null, name


def test_every_field_is_described() -> None:
    assert [n for n, f in WorkflowEvent.model_fields.items() if not f.description] == []


def test_every_field_comes_back() -> None:
    found = WorkflowEvent.from_line(line(**FULL))
    given = json.loads(line(**FULL))

    assert found.model_dump(exclude_unset=True, mode="python") == given | {
        "damage": [tuple(given["damage"][0])]
    }
    assert set(WorkflowEvent.model_fields) - found.model_fields_set == set()


def test_what_is_absent_is_not_set() -> None:
    found = WorkflowEvent.from_line(line())

    assert found.result is None
    assert "result" not in found.model_fields_set
    assert "agent" in found.model_fields_set


def test_time_is_in_nanoseconds() -> None:
    assert WorkflowEvent.from_line(line()).time_ns == AT
    with pytest.raises(ValueError, match=r"not an RFC 3339 UTC time with nine digits: 'noon'"):
        _ = WorkflowEvent.from_line(line(timestamp="noon")).time_ns


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        WorkflowEvent.from_line(line()).seq = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        line()[:-20],
        line().replace(b'"seq":1', b'"seq":true'),
        line().replace(b'"seq":1', b'"seq":"1"'),
        line().replace(b'"seq":1', b'"seq":1.0'),
        line().replace(b'"step":"draft"', b'"step":null'),
        line().replace(b'"attempt":1', b'"attempt":NaN'),
        line().replace(b'"attempt":1', b'"attempt":1,"new":' + b"[" * 100_000 + b"]" * 100_000),
        line()[:-6] + b'xx"}\n',
        b"\xef\xbb\xbf" + line(),
        line().decode().encode("utf-16"),
        line().replace(b"draft", b"\xff\xfe"),
    ],
)
def test_a_line_that_is_not_an_event_is_a_value_error(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        WorkflowEvent.from_line(bad)


def test_a_log_is_streamed_as_models(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    data = write(path, story())
    checker = Checker(path, ID)
    found = list(read_model(path, ID, checker=checker))

    assert [one.seq for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [one.sha for one in found] == [one[-67:-3].decode() for one in data.splitlines(True)]
    assert (checker.seq, checker.end) == (7, len(data))


def test_streaming_a_damaged_log_raises_at_the_place(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    data = write(path, story())
    path.write_bytes(data[:500] + b"#" + data[501:])

    with pytest.raises(LogDamagedError):
        list(read_model(path, ID))


def test_the_schema_requires_the_fields_of_every_line() -> None:
    schema = json_schema()

    assert schema["required"] == [
        "v", "seq", "event_type", "workflow_id", "timestamp", "execution", "sha"
    ]  # fmt: skip
    assert schema["additionalProperties"] is True
    assert schema["properties"]["seq"]["type"] == "integer"
    assert schema["properties"]["sha"]["pattern"] == "^[0-9a-f]{64}$"
    assert "default" not in json.dumps(schema)


def test_the_schema_tells_what_an_optional_field_is() -> None:
    """Where it is present, it is not null."""
    properties = json_schema()["properties"]

    kinds = {name: properties[name]["type"] for name in ("name", "order", "late", "artifacts")}
    assert kinds == {"name": "string", "order": "integer", "late": "boolean", "artifacts": "array"}


def test_events_of_the_hot_path_and_models_read_the_same() -> None:
    for one in story():
        made, _ = encode(one, genesis(ID))
        model, struct = WorkflowEvent.from_line(made), decode(made)
        for name in model.model_fields_set - {"sha", "inputs", "result"}:
            assert getattr(model, name) == getattr(struct, name)
