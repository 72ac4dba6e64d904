"""Files of OTLP JSON lines, as a collector's file exporter writes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.transport.encoding import encoded

_IDS = {"traceId", "spanId", "parentSpanId"}


def as_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """Convert a request to OTLP's JSON, whose ids are hex and not base64 as in protobuf's."""
    made: dict[str, Any] = _hex_ids(MessageToDict(request, use_integers_for_enums=True))
    return made


def _hex_ids(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _hex_ids(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_hex_ids(one) for one in value]
    return base64.b64decode(value).hex() if key in _IDS else value


def requests_of(folder: Path, workflow_id: str) -> list[dict[str, Any]]:
    """Return the spans that a run's log would send now, as requests of one span each."""
    made = []
    for found in RunSpans(Store(folder.absolute()), workflow_id):
        (request,) = encoded([found.span])
        made.append(as_json(ExportTraceServiceRequest.FromString(request.data)))
    return made


def keep(path: Path, requests: Iterable[Any]) -> Path:
    """Write requests to a file, one a line."""
    path.write_text("".join(json.dumps(one) + "\n" for one in requests), "utf-8")
    return path


def span_of(request: dict[str, Any]) -> dict[str, Any]:
    """Return the only span of a request."""
    ((span,),) = ([*of["scopeSpans"][0]["spans"]] for of in request["resourceSpans"])
    made: dict[str, Any] = span
    return made
