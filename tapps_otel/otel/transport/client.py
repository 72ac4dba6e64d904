"""Sending OTLP and checking every answer, over gRPC and over HTTP with protobuf.

The SDK's own exporters report success when the collector accepted a part of a batch
(``partial_success``), and do not tell why one was refused. So requests are made here, with the same
variables, and the collector's answer decides.

OTLP specification 1.x, sections "OTLP/gRPC Response" and "OTLP/HTTP Response": which answers are
retried, how long to wait, and that spans which were rejected are not sent again.
"""

from __future__ import annotations

import gzip
import random
import threading
import zlib
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel import clock
from tapps_otel.errors import SendError, SettingsError
from tapps_otel.log import files as _files
from tapps_otel.otel.metrics.measures import count_spans
from tapps_otel.otel.transport.destination import GRPC, HTTP
from tapps_otel.otel.transport.reasons import (
    MOST_TEXT,
    SET_PROTOCOL,
    connection_reason,
    is_about_size,
    plain_reason,
    seconds_in,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.otel.transport.destination import Destination

__all__ = ["Answer", "Client", "RefusedError", "connect"]

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0  # seconds between two attempts
_BODY: Final = 64 * 1024  # bytes of an answer that are read
_TOO_LARGE: Final = 413
_CONTENT_CODES: Final = frozenset({400, _TOO_LARGE, 422})
# In gRPC's words for an answer by an older version of HTTP, or by a web server of the same version.
_NOT_HTTP2: Final = ("Failed parsing HTTP/2", "http2 header with status: 404")


class Answer(NamedTuple):
    """A collector's answer to a request that it accepted.

    :ivar rejected: how many of its spans it rejected; they must not be sent again
    :ivar message: the collector's text
    """

    rejected: int = 0
    message: str = ""


class RefusedError(SendError):
    """A request was refused for what is in it: others may be accepted.

    :ivar status: of the collector's answer
    :ivar for_size: the answer says that it is too large
    """

    def __init__(self, destination: str, reason: str, status: str, *, for_size: bool) -> None:
        self.status, self.for_size = status, for_size
        super().__init__(destination, reason)


class _RetryableError(Exception):
    """A failure after which the request may be sent again.

    :ivar after: how long the collector asks to wait, seconds
    """

    def __init__(self, text: str, after: float = 0.0) -> None:
        super().__init__(text)
        self.after = after


def connect(destination: Destination) -> Client:
    """Make a client of this collector; nothing is sent yet.

    :raises SettingsError: a certificate or key that cannot be read
    """
    return (_Grpc if destination.protocol == GRPC else _Http)(destination)


class Client(ABC):
    """Sends requests to one collector. For one thread at a time.

    :ivar waiting: called before a request is sent again, with the reason, and with the seconds
        after which it is given up
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.waiting: Callable[[str, float], None] = lambda *_: None
        self._given_up = threading.Event()

    def send(self, request: bytes, *, spans: int = 0, patience: float | None = None) -> Answer:
        """Send an encoded ``ExportTraceServiceRequest``; wait for the answer.

        Failures that may pass are retried, after growing waits with jitter.

        :param spans: how many are in it, for the metrics
        :param patience: for how long, seconds; by default the destination's time-out
        :raises RefusedError: it was refused for what is in it; its spans are not counted
        :raises SendError: the sender was refused, the collector failed, or it did not answer in
            time
        """
        try:
            answer = self._send(request, patience or self.destination.timeout)
        except _RetryableError as error:
            count_spans(self.destination.address, spans, "unavailable")
            raise self._refusal(str(error)) from None
        except RefusedError:
            raise
        except SendError:
            self.count_refused(spans)
            raise
        answer = answer._replace(message=self.destination.mask(answer.message))
        rejected = min(answer.rejected, spans)
        count_spans(self.destination.address, spans - rejected)
        count_spans(self.destination.address, rejected, "rejected")
        return answer

    def _send(self, request: bytes, seconds: float) -> Answer:
        """Retry until it is accepted, it is refused, or the time is over."""
        deadline = clock.monotonic_ns() + int(seconds * 1e9)
        wait = _FIRST_WAIT
        while True:
            left = (deadline - clock.monotonic_ns()) / 1e9
            try:
                return self._send_once(request, max(left, 0.05))
            except _RetryableError as error:
                jitter = random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
                # Never less than without a request to wait: it may be for 0 s, again and again.
                pause = max(wait * jitter, error.after)
                left = (deadline - clock.monotonic_ns()) / 1e9
                if pause > left:
                    raise
                self.waiting(self.destination.mask(str(error)), left)
                if self._given_up.wait(pause):
                    raise
                wait = min(2 * wait, _LONGEST_WAIT)

    def count_refused(self, spans: int) -> None:
        """Count spans that were refused."""
        count_spans(self.destination.address, spans, "refused")

    def give_up(self) -> None:
        """Stop retrying; may be called from any thread."""
        self._given_up.set()

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _send_once(self, request: bytes, seconds: float) -> Answer:
        """Send it once.

        :raises RefusedError: it was refused for what is in it
        :raises SendError: the sender was refused, or the collector failed
        :raises _RetryableError: it may be accepted later
        """

    def _refusal(self, text: str) -> SendError:
        """Make the error of a refusal that would meet any request."""
        # A collector may repeat a header, and a library an address.
        return SendError(self.destination.name, self.destination.mask(text))

    def _refusal_of_content(self, text: str, status: str, *, for_size: bool) -> RefusedError:
        masked = self.destination.mask(text)
        return RefusedError(self.destination.name, masked, status, for_size=for_size)


def _answer(partial: Any) -> Answer:
    return Answer(partial.rejected_spans, partial.error_message[:MOST_TEXT])


class _Http(Client):
    """OTLP/HTTP with protobuf bodies."""

    def __init__(self, destination: Destination) -> None:
        from tapps_otel.otel.transport.timed_http import TimedSession

        super().__init__(destination)
        self._session = session = TimedSession()
        for file in (destination.certificate, destination.client_key):
            _content(file)  # raises an error that names the file
        if destination.certificate:
            session.verify = destination.certificate
        if destination.client_certificate:
            key = destination.client_key
            certificate = destination.client_certificate
            session.cert = (certificate, key) if key else certificate
        session.headers.update(dict(destination.headers))
        session.headers["Content-Type"] = "application/x-protobuf"
        session.headers["User-Agent"] = "tapps_otel"
        if destination.compression:
            session.headers["Content-Encoding"] = destination.compression

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        import requests

        try:
            response = self._session.fetch(
                "POST",
                self.destination.endpoint,
                data=_compressed(request, self.destination.compression),
                seconds=seconds,
            )
            with response:
                body = next(response.iter_content(_BODY), b"")
        except (requests.exceptions.InvalidHeader, UnicodeError):  # their text shows the header
            raise self._refusal(
                "a header has characters that HTTP does not allow: check OTEL_EXPORTER_OTLP_HEADERS"
            ) from None
        except (requests.exceptions.SSLError, ValueError) as error:
            raise self._refusal(plain_reason(error)) from None
        except requests.RequestException as error:
            raise _RetryableError(connection_reason(error)) from None
        return self._judge(response.status_code, response.headers, body)

    def _judge(self, code: int, headers: Any, body: bytes) -> Answer:
        if 200 <= code < 300:
            return self._read(body, str(headers.get("Content-Type", "")))
        text = f"it answered {code}{text_of(body, headers)}"
        if code in {429, 502, 503, 504}:
            raise _RetryableError(text, seconds_in(headers.get("Retry-After")))
        hint = {
            401: "are the credentials in OTEL_EXPORTER_OTLP_HEADERS?",
            403: "are the credentials in OTEL_EXPORTER_OTLP_HEADERS right?",
            404: "is this the path of an OTLP receiver (/v1/traces)?",
            405: "is this the path of an OTLP receiver (/v1/traces)?",
        }.get(code)
        if hint:
            raise self._refusal(f"{text}; {hint}")
        if code in _CONTENT_CODES:  # others, as 500, say nothing of what is in the request
            for_size = code == _TOO_LARGE or is_about_size(text)
            raise self._refusal_of_content(text, str(code), for_size=for_size)
        raise self._refusal(text)

    def _read(self, body: bytes, content_type: str) -> Answer:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceResponse,
        )

        if not content_type.startswith("application/x-protobuf"):
            if content_type.startswith("text/html"):
                raise self._refusal("it answered with a web page: this is not an OTLP receiver")
            return Answer()
        try:
            return _answer(ExportTraceServiceResponse.FromString(body).partial_success)
        except DecodeError:
            raise self._refusal("its answer is not OTLP: is this an OTLP receiver?") from None

    def close(self) -> None:
        self._session.close()


def _compressed(request: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(request)
    return zlib.compress(request) if how == "deflate" else request


class _Grpc(Client):
    """OTLP/gRPC."""

    def __init__(self, destination: Destination) -> None:
        super().__init__(destination)
        self._call: Any = None
        self._channel: Any = None
        self._headers = tuple((name.lower(), value) for name, value in destination.headers)
        self._open()

    def _open(self) -> None:
        import grpc
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceResponse,
        )

        compression = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}.get(
            self.destination.compression, grpc.Compression.NoCompression
        )
        target = self.destination.endpoint
        # A collector that is restarted is found at once, not after the library's own waits.
        options = (
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.primary_user_agent", "tapps_otel"),
        )
        if self.destination.secure:
            credentials = _credentials(self.destination)
            self._channel = grpc.secure_channel(target, credentials, options, compression)
        else:
            self._channel = grpc.insecure_channel(target, options, compression)
        self._call = self._channel.unary_unary(
            _METHOD, response_deserializer=ExportTraceServiceResponse.FromString
        )

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        import grpc

        try:
            response = self._call(request, timeout=seconds, metadata=self._headers)
        except grpc.RpcError as error:
            raise self._judge(error) from None
        except ValueError as error:  # the channel has been closed
            raise self._refusal(str(error)) from None
        return _answer(response.partial_success)

    def _judge(self, error: Any) -> Exception:
        import grpc

        code, details = error.code(), str(error.details() or "")[:MOST_TEXT]
        text = f"{code.name}: {details}"
        if any(sign in details for sign in _NOT_HTTP2):
            text = f"{text}; is this a port of OTLP/HTTP (4318)? {SET_PROTOCOL} to {HTTP}"
        if code in {
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DATA_LOSS,
        }:
            return _RetryableError(text, _requested_wait(error) or 0.0)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return _RetryableError("it does not answer in time")
        # Servers answer with these to a request that is too large, too. The standard would have
        # OUT_OF_RANGE retried without being asked for it: that would never end well.
        exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if exhausted or code is grpc.StatusCode.OUT_OF_RANGE:
            wait = _requested_wait(error)
            if wait is not None:
                return _RetryableError(text, wait)
        for_size = is_about_size(details)
        if (exhausted and for_size) or code in {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.OUT_OF_RANGE,
        }:
            return self._refusal_of_content(text, code.name, for_size=for_size)
        # Others, as UNKNOWN, INTERNAL, or a quota that is used up, say nothing of the content.
        if code is grpc.StatusCode.UNIMPLEMENTED and not text.endswith(HTTP):
            text = f"{text}; is this an OTLP receiver for traces?"
        return self._refusal(text)

    def close(self) -> None:
        self._channel.close()


def _requested_wait(error: Any) -> float | None:
    """Return how long the collector asks to wait, seconds (google.rpc.RetryInfo)."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    found: dict[str, bytes] = dict(error.trailing_metadata() or ())
    with suppress(DecodeError):
        for detail in Status.FromString(found.get("grpc-status-details-bin", b"")).details:
            info = RetryInfo()
            if detail.Unpack(info):
                return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None


def _credentials(destination: Destination) -> Any:
    import grpc

    return grpc.ssl_channel_credentials(
        _content(destination.certificate),
        _content(destination.client_key),
        _content(destination.client_certificate),
    )


def _content(file: str | None) -> bytes | None:
    if file is None:
        return None
    try:
        return _files.system().read_small_file(file)
    except OSError as error:
        raise SettingsError(f"{file}: cannot read the certificate or key: {error}") from None
