"""Strict readers of the export formats, independent of the code that writes them."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tapps_otel.audit.export import Export, Format
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import Found, RunSpans


def exported(form: Format, workflow_id: str = "r", folder: Path | str = "logs") -> str:
    """Return the whole text of an export that has no problems."""
    export = Export(Store(Path(folder)), workflow_id, form)
    text = "".join(export)

    assert export.problems == []
    return text


def spans_of(workflow_id: str = "r", folder: Path | str = "logs") -> list[Found]:
    return list(RunSpans(Store(Path(folder)), workflow_id))


# ---------------------------------------------------------------- JSON


def strict(text: str, **options: Any) -> Any:
    """Parse JSON of RFC 8259: without NaN, duplicate names and lone surrogates."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    text.encode()
    value = json.loads(text, parse_constant=refuse, object_pairs_hook=members, **options)
    json.dumps(value, ensure_ascii=False, default=str).encode()
    return value


def request_of(line: str) -> ExportTraceServiceRequest:
    """Parse a line of OTLP JSON into the protobuf request that it encodes."""
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    request = strict(line)
    for of_resource in request["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                for one in (span, *span.get("links", ())):
                    _with_ids_in_base64(one)
    message = ExportTraceServiceRequest()
    ParseDict(request, message)
    return message


def _with_ids_in_base64(fields: dict[str, Any]) -> None:
    for name, digits in (("traceId", 32), ("spanId", 16), ("parentSpanId", 16)):
        if name in fields:
            assert re.fullmatch(f"[0-9a-f]{{{digits}}}", fields[name])
            fields[name] = b64encode(bytes.fromhex(fields[name])).decode()


# ---------------------------------------------------------------- Trace Event Format


class Slice(NamedTuple):
    """A span of a trace. Times are nanoseconds."""

    name: str
    category: str
    pid: int
    tid: int
    start: int
    end: int
    args: dict[str, Any]


class Trace(NamedTuple):
    """A trace as a viewer loads it, with the names of processes and threads by number."""

    slices: list[Slice]
    instants: list[dict[str, Any]]
    processes: dict[int, str]
    threads: dict[int, str]

    def named(self, name: str) -> list[Slice]:
        return [one for one in self.slices if one.name == name]


def trace_of(text: str) -> Trace:
    """Parse a trace, and check that a viewer can draw it."""
    trace = Trace([], [], {}, {})
    for event in strict(text, parse_float=Decimal):
        pid, tid, kind = event["pid"], event["tid"], event["ph"]
        if kind == "M":
            name = event["args"]["name"]
            names = {"process_name": (trace.processes, pid), "thread_name": (trace.threads, tid)}
            into, number = names[event["name"]]
            assert number not in into
            into[number] = name
            continue
        assert pid in trace.processes
        assert tid in trace.threads
        assert isinstance(event["name"], str)
        assert isinstance(event["cat"], str)
        start = _nanoseconds(event["ts"])
        if kind == "X":
            end = start + _nanoseconds(event["dur"])
            trace.slices.append(
                Slice(event["name"], event["cat"], pid, tid, start, end, event["args"])
            )
        else:
            assert (kind, event["s"]) == ("i", "t")
            trace.instants.append(event)
    _assert_drawable(trace.slices)
    return trace


def _nanoseconds(microseconds: Decimal) -> int:
    assert isinstance(microseconds, Decimal)
    ns = microseconds * 1000
    assert ns == int(ns)
    return int(ns)


def _assert_drawable(slices: list[Slice]) -> None:
    """Check that a thread belongs to one process and that its slices nest."""
    by_thread: dict[int, list[Slice]] = {}
    for one in slices:
        assert one.start <= one.end
        by_thread.setdefault(one.tid, []).append(one)
    for of_thread in by_thread.values():
        assert len({one.pid for one in of_thread}) == 1
        stack: list[Slice] = []
        for one in sorted(of_thread, key=lambda one: (one.start, -one.end)):
            while stack and stack[-1].end <= one.start:
                stack.pop()
            assert all(outer.end >= inner.end for outer, inner in pairwise([*stack, one]))
            stack.append(one)
