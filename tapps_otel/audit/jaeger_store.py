"""A Jaeger as a store of a run's spans.

It is queried by API v3 with ``rawTraces``, which returns OTLP: times in ns, types and links as they
were sent. The older API, ``/api/traces``, rounds times to microseconds. What Jaeger keeps of a span
depends on the storage behind it (tried with 2.13): the one in memory keeps all but schema URLs;
Badger and others, which store spans in Jaeger's own older form, keep what
:meth:`JaegerStore.reduce` leaves of a span.
"""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

from tapps_otel.audit.span_stores import SpanStore
from tapps_otel.errors import SpansError
from tapps_otel.masking import public_url
from tapps_otel.otel.transport.reasons import plain_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.audit.normalized_span import NormalizedSpan

__all__ = ["JaegerStore"]

_MOST_BYTES: Final = 256 << 20  # of a response: a trace of over a hundred thousand spans
_READ_TIMEOUT: Final = 10.0  # seconds without a byte
_TOTAL_TIMEOUT: Final = 120.0  # seconds for a whole response
_BLOCK: Final = 1 << 18
_QUOTED: Final = 200  # characters of a response that are put into an error
_HOST: Final = "ip"  # of a resource: this project's collector adds it, as another `host.name`
_NO_HOST: Final = "unknown"  # its value where there is no `host.name`
_WARNINGS: Final = "@jaeger@warnings"  # Jaeger's own remarks, which it adds to spans


class JaegerStore(SpanStore):
    """One trace in a Jaeger.

    :param url: of its query service, as ``http://localhost:16686``, with its path prefix if it has
        one
    :param trace_id: 32 hex digits; ``None`` sends no request, and there are no spans
    :raises SpansError: there is no response, or not one of a Jaeger
    """

    lacks = (
        "flags, dropped counts, schema URLs, attributes of links and of scopes, and whether a "
        "value was a list or its text"
    )

    def __init__(self, url: str, trace_id: str | None) -> None:
        name = public_url(url).rstrip("/")
        super().__init__(name)
        try:
            parts = urlsplit(url)
        except ValueError:  # its text may have the user's name and password
            raise SpansError(name, "this is not a valid address") from None
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._response = b"" if trace_id is None else self._fetch(trace_id)

    def _open(self) -> BinaryIO:
        return io.BytesIO(self._response)

    def spans(self, wanted: Callable[[str, str], bool]) -> Iterator[NormalizedSpan]:
        """Yield its spans, without what is added to them on the way to Jaeger, and by it."""
        for span in super().spans(wanted):
            span.fields["attributes"].pop(_WARNINGS, None)
            resource = span.fields["resource"]
            if _HOST in resource and resource[_HOST] == resource.get("host.name", _NO_HOST):
                del resource[_HOST]
            yield span

    def reduce(self, span: NormalizedSpan) -> NormalizedSpan:
        """Return what Jaeger's older form keeps of a span."""
        fields = span.fields
        scope = {name: fields["scope"][name] for name in ("name", "version")}
        reduced = {
            "attributes": _flat(fields["attributes"]),
            "resource": _flat(fields["resource"]),
            "events": [{**one, "attributes": _flat(one["attributes"])} for one in fields["events"]],
            "links": [{**one, "attributes": {}} for one in fields["links"]],
            "scope": scope,
            "flags": 0,
            "dropped counts": [],
            "schemas": [],
        }
        return span._replace(fields={**fields, **reduced})

    # -- the request

    def _fetch(self, trace_id: str) -> bytes:
        """Return the response for a trace; empty if Jaeger does not have it."""
        import requests

        from tapps_otel.otel.transport.timed_http import TimedSession

        url = f"{self._url}/api/v3/traces/{trace_id}?rawTraces=true"
        try:
            with (
                TimedSession() as session,
                session.fetch("GET", url, seconds=_TOTAL_TIMEOUT, idle=_READ_TIMEOUT) as response,
            ):
                return self._check(response, self._read(response))
        except requests.Timeout:
            raise self._error("it does not answer in time") from None
        except (requests.RequestException, ValueError) as error:
            raise self._error(plain_reason(error)) from None

    def _read(self, response: Any) -> bytes:
        taken = bytearray()
        for block in response.iter_content(_BLOCK):
            taken += block
            if len(taken) > _MOST_BYTES:
                raise self._error(f"its response has more than {_MOST_BYTES >> 20} MiB")
        return bytes(taken)

    def _check(self, response: Any, body: bytes) -> bytes:
        code, headers = response.status_code, response.headers
        is_page = headers.get("Content-Type", "").startswith("text/html")
        if code == 200 and not is_page:
            return body
        if code == 404 and body.startswith(b'{"error"'):  # of a Jaeger, not of another server
            return b""
        if is_page:
            text = f"it answered {code} with a web page"
        elif location := headers.get("Location"):
            text = f"it answered {code}, see {location[:_QUOTED]}"
        else:
            quoted = body[:_QUOTED].decode(errors="replace").strip()
            text = f"it answered {code}: {quoted}"
        raise self._error(
            f"{text}. Give the address of a Jaeger, with its path prefix if it has one, as "
            "http://localhost:16686"
        )

    def _error(self, reason: str) -> SpansError:
        return SpansError(self.name, reason)


def _flat(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: _flattened(value) for key, value in attributes.items()}


def _flattened(value: Any) -> Any:
    """Turn lists and mappings into JSON text; text that is such JSON gets the same form."""
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list | dict):
        return json.dumps(_plain(value), sort_keys=True)
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """Return a value as another program's JSON has it: 1 and 1.0 are equal, bytes are text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return int(value) if isinstance(value, float) and value.is_integer() else value
