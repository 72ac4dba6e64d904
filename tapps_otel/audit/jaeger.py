"""A Jaeger as a place where a run's spans are kept.

It is asked by API v3 with ``rawTraces``, whose answer is OTLP: times in ns, types and links as they
were sent. The older API, ``/api/traces``, rounds times to microseconds. How much there is to answer
depends on the storage behind it (tried with 2.13): the one in memory keeps all but schema URLs;
Badger and others, which hold spans in Jaeger's own older form, keep what :meth:`Jaeger.reduce`
leaves of a span.
"""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

from tapps_otel import clock
from tapps_otel.audit.span_stores import Place
from tapps_otel.errors import SpansError
from tapps_otel.otel.transport.client import plain_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.audit.normalized_span import Meaning

__all__ = ["Jaeger"]

_ANSWER: Final = 256 << 20  # bytes: a trace of more than a hundred thousand spans
_SILENCE: Final = 10.0  # seconds without a byte
_PATIENCE: Final = 120.0  # seconds for all of an answer
_BLOCK: Final = 1 << 18
_TEXT: Final = 200  # characters of an answer that are passed on
_WARNINGS: Final = "@jaeger@warnings"  # Jaeger's own remarks, which it adds to spans that it shows


class Jaeger(Place):
    """One trace in a Jaeger.

    :param url: of its query service, as ``http://localhost:16686``, with its path prefix if it has
        one
    :param trace_id: 32 hex digits; without one nothing is asked
    :raises SpansError: no answer comes, or one that is no Jaeger's
    """

    lacks = (
        "flags, dropped counts, schema URLs, attributes of links and of scopes, and whether a list "
        "was one or a text"
    )

    def __init__(self, url: str, trace_id: str | None) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise SpansError("this address", str(error)) from None
        path = parts.path.rstrip("/")
        super().__init__(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}")
        self._url = f"{parts.scheme}://{parts.netloc}{path}"
        self._answer = b"" if trace_id is None else self._ask(trace_id)

    def _open(self) -> BinaryIO:
        return io.BytesIO(self._answer)

    def spans(self, wanted: Callable[[str, str], bool]) -> Iterator[Meaning]:
        """Its spans, without what Jaeger remarks on them."""
        for span in super().spans(wanted):
            span.fields["attributes"].pop(_WARNINGS, None)
            yield span

    def reduce(self, span: Meaning) -> Meaning:
        """What is left of a span in Jaeger's older form."""
        fields = span.fields
        scope = {name: fields["scope"][name] for name in ("name", "version")}
        less = {
            "attributes": _flat(fields["attributes"]),
            "resource": _flat(fields["resource"]),
            "events": [{**one, "attributes": _flat(one["attributes"])} for one in fields["events"]],
            "links": [{**one, "attributes": {}} for one in fields["links"]],
            "scope": scope,
            "flags": 0,
            "dropped counts": [],
            "schemas": [],
        }
        return span._replace(fields={**fields, **less})

    # -- the question

    def _ask(self, trace_id: str) -> bytes:
        """The trace as it answers; nothing if it does not know it."""
        import requests

        try:
            with requests.get(
                f"{self._url}/api/v3/traces/{trace_id}?rawTraces=true",
                timeout=_SILENCE,
                stream=True,
                allow_redirects=False,
            ) as response:
                return self._judge(response, self._read(response))
        except requests.Timeout:
            raise self._refusal("it does not answer in time") from None
        except (requests.RequestException, ValueError) as error:
            raise self._refusal(plain_reason(error)) from None

    def _read(self, response: Any) -> bytes:
        deadline = clock.monotonic_ns() + int(_PATIENCE * 1e9)
        taken = bytearray()
        for block in response.iter_content(_BLOCK):
            taken += block
            if len(taken) > _ANSWER:
                raise self._refusal(f"its answer has more than {_ANSWER >> 20} MiB")
            if clock.monotonic_ns() > deadline:
                raise self._refusal(f"its answer takes more than {_PATIENCE:.0f} s")
        return bytes(taken)

    def _judge(self, response: Any, body: bytes) -> bytes:
        code, headers = response.status_code, response.headers
        is_page = headers.get("Content-Type", "").startswith("text/html")
        if code == 200 and not is_page:
            return body
        if code == 404 and body.startswith(b'{"error"'):  # else it does not know the path
            return b""
        said = body[:_TEXT].decode(errors="replace").strip()
        if is_page:
            text = f"it answered {code} with a web page"
        elif place := headers.get("Location"):
            text = f"it answered {code}, see {place[:_TEXT]}"
        else:
            text = f"it answered {code}: {said}"
        raise self._refusal(
            f"{text}. Give the address of a Jaeger, with its path prefix if it has one, as "
            "http://localhost:16686"
        )

    def _refusal(self, reason: str) -> SpansError:
        return SpansError(self.name, reason)


def _flat(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: _flattened(value) for key, value in attributes.items()}


def _flattened(value: Any) -> Any:
    """Lists and mappings as one text of JSON; one that is there already in the same form."""
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list | dict):
        return json.dumps(_plain(value), sort_keys=True)
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """What JSON of another program says of a value: no difference between 1 and 1.0, no bytes."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return int(value) if isinstance(value, float) and value.is_integer() else value
