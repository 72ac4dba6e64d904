"""Why an HTTP request failed, in a sentence, and what an answer says of it."""

from __future__ import annotations

import math
import re
from http.client import BadStatusLine
from typing import Any, Final

from tapps_otel.otel.transport.destination import GRPC

__all__ = [
    "MOST_TEXT",
    "SET_PROTOCOL",
    "connection_reason",
    "is_about_size",
    "plain_reason",
    "seconds_in",
    "text_of",
]

MOST_TEXT: Final = 300  # characters of an answer that are shown
SET_PROTOCOL: Final = "Set the protocol (--protocol, otlp_protocol, OTEL_EXPORTER_OTLP_PROTOCOL)"
# In the words of gRPC for Go and C, for Java, for Rust, and of Go's HTTP server.
_SIZE: Final = re.compile(r"larger than max|exceeds maximum size|(length|body) too large")
_OBJECT: Final = re.compile(r"(<.*?>|\w+\(.*?\)): ")  # urllib3 names its own objects first


def plain_reason(error: Exception) -> str:
    """Return the innermost reason of a chain of wrapped errors, as a sentence."""
    from tapps_otel.otel.transport.timed_http import is_late

    if is_late(error):
        return "it does not answer in time"
    if isinstance(error, ValueError):  # of requests: its text has the whole address
        return "this is not a valid address: give one as http://collector:4318"
    reason = _innermost(error)
    if type(reason) is BadStatusLine:  # its text is what came instead
        return "it does not answer by HTTP"
    text = getattr(reason, "strerror", None) or str(reason)
    return _OBJECT.sub("", text)[:MOST_TEXT] or type(reason).__name__


def _innermost(error: BaseException) -> BaseException:
    reason = error
    while inner := [
        one
        for one in (getattr(reason, "reason", None), *reason.args)
        if isinstance(one, BaseException)
    ]:
        reason = inner[0]
    return reason


def connection_reason(error: Exception) -> str:
    """Return why a request had no answer, with what it is in most cases."""
    text = plain_reason(error)
    if isinstance(_innermost(error), BadStatusLine | ConnectionError) and "refused" not in text:
        return f"{text}; is this a port of OTLP/gRPC (4317)? {SET_PROTOCOL} to {GRPC}"
    return text


def is_about_size(text: str) -> bool:
    """Whether a collector's text says that a request is above its limit of size."""
    return _SIZE.search(text) is not None


def text_of(body: bytes, headers: Any) -> str:
    """Return the collector's text, if its answer has one."""
    kind = str(headers.get("Content-Type", ""))
    if kind.startswith("application/x-protobuf"):
        from google.protobuf.message import DecodeError
        from google.rpc.status_pb2 import Status

        try:
            return f": {Status.FromString(body).message[:MOST_TEXT]}"
        except DecodeError:
            return ""
    text = body.decode(errors="replace").strip()
    return f": {text[:MOST_TEXT]}" if text and not kind.startswith("text/html") else ""


def seconds_in(text: str | None) -> float:
    """Read a ``Retry-After``; 0 if it has no number of seconds (it may have a date)."""
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(seconds) else seconds
