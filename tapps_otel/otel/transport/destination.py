"""Where spans are sent, by arguments, settings and standard variables.

The variables are those of the OpenTelemetry specification, "OpenTelemetry Protocol Exporter", and
mean what they mean to the SDK's exporters.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from tapps_otel.errors import SettingsError
from tapps_otel.masking import mask, public_url, secrets_in
from tapps_otel.otel.environment import address_of, otlp_variable

if TYPE_CHECKING:
    from tapps_otel.settings_model import Settings

__all__ = ["GRPC", "HTTP", "Destination", "destination", "endpoint_by", "protocol_of"]

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
_variable = partial(otlp_variable, "TRACES")
_log = logging.getLogger(__name__)
_MOST_SECONDS: Final = 1000  # longer time-outs are unlikely: it is 1 s in milliseconds
_PATH: Final = "/v1/traces"
_LOCAL: Final = {GRPC: "http://localhost:4317", HTTP: "http://localhost:4318"}


@dataclass(frozen=True, slots=True)
class Destination:
    """A collector, and how requests reach it.

    :ivar protocol: ``grpc`` or ``http/protobuf``
    :ivar endpoint: ``host:port`` for gRPC, a whole URL for HTTP
    :ivar secure: over TLS
    :ivar headers: of each request; they may hold secrets, and are never shown
    :ivar timeout: for one request with its retries, seconds
    :ivar compression: ``gzip``, ``deflate`` or empty
    :ivar certificate: file of the authority that vouches for the collector's certificate
    :ivar client_key: file of this program's key, for collectors that authenticate clients
    :ivar client_certificate: file of the certificate of that key
    """

    protocol: str
    endpoint: str = field(repr=False)  # it may hold a password
    secure: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = 10.0
    compression: str = ""
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None

    @property
    def name(self) -> str:
        """Its name in ledgers and messages: protocol and address, without secrets."""
        url = public_url(self.endpoint)
        return f"grpc://{url}" if self.protocol == GRPC else url

    @property
    def address(self) -> str:
        """Host and port."""
        return address_of(self.endpoint)

    def mask(self, text: str) -> str:
        """Return a text of a collector or a library without the secrets of this destination."""
        secrets = secrets_in(self.endpoint)
        for _, value in self.headers:  # as `Bearer` and a token
            secrets.update((value, *value.split()))
        return mask(text, secrets)


def destination(
    settings: Settings,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    local: bool = False,
) -> Destination | None:
    """Return the collector that arguments, settings or variables name.

    ``None`` if none does.

    :param local: return a collector on this host then, the default of the standard
    :raises SettingsError: an unknown protocol, or a number that is not valid
    """
    given = endpoint or settings.otlp_endpoint
    whole = "" if given else _variable("ENDPOINT", common=False)
    base = given or _variable("ENDPOINT")
    if not (base or local):
        return None
    protocol = protocol or protocol_of(settings, endpoint)
    if protocol not in {GRPC, HTTP}:
        raise SettingsError(f"unknown protocol {protocol!r:.80}: use {GRPC!r} or {HTTP!r}")
    base = base or _LOCAL[protocol]
    headers = settings.otlp_headers
    return Destination(
        protocol=protocol,
        headers=tuple((headers if headers is not None else _headers()).items()),
        timeout=_seconds(_variable("TIMEOUT")),
        compression=_compression(_variable("COMPRESSION")),
        certificate=_variable("CERTIFICATE") or None,
        client_key=_variable("CLIENT_KEY") or None,
        client_certificate=_variable("CLIENT_CERTIFICATE") or None,
        **_address(protocol, base, is_whole=bool(whole)),
    )


def protocol_of(settings: Settings, endpoint: str | None = None) -> str:
    """Return the protocol that is asked for, supported or not."""
    asked = settings.otlp_protocol or _variable("PROTOCOL")
    given = endpoint or settings.otlp_endpoint
    return asked or (_guess(given) if given else GRPC)


def endpoint_by(settings: Settings) -> str:
    """Return what the setting ``otlp_endpoint`` reaches; empty without it.

    That is host and port by gRPC, and the whole address by HTTP: projects may share a host.
    """
    given = settings.otlp_endpoint
    if not given:
        return ""
    endpoint: str = _address(protocol_of(settings), given, is_whole=False)["endpoint"]
    return endpoint


def _address(protocol: str, base: str, *, is_whole: bool) -> dict[str, Any]:
    scheme = base.partition("://")[0].lower() if "://" in base else ""
    if protocol == GRPC:  # which has no users
        insecure = _variable("INSECURE").lower() == "true" or scheme == "http"
        return {"endpoint": address_of(base), "secure": scheme == "https" or not insecure}
    url = base if scheme else f"http://{base}"
    return {"endpoint": url if is_whole else _with_path(url), "secure": scheme == "https"}


def _with_path(url: str) -> str:
    """Add the path of a receiver of traces to an address that does not end with it."""
    end = next((at for at, one in enumerate(url) if one in "?#"), len(url))
    path = url[:end].rstrip("/")
    return (path if path.endswith(_PATH) else path + _PATH) + url[end:]


def _guess(base: str) -> str:
    """Guess the protocol of an endpoint that was set without one.

    It is HTTP for its usual port, and for its usual path.
    Else gRPC, the default of the standard variables.
    """
    try:
        parts = urlsplit(base if "//" in base else f"//{base}")
        usual = parts.port == 4318 or parts.path.rstrip("/").endswith(_PATH)
    except ValueError:
        usual = False
    return HTTP if usual else GRPC


def _headers() -> dict[str, str]:
    """Read ``name=value,name=value``; the SDK's own reader logs the value of a bad entry."""
    found: dict[str, str] = {}
    for number, entry in enumerate(_variable("HEADERS").split(","), 1):
        name, equals, value = (unquote(part).strip() for part in entry.partition("="))
        if equals and name:
            found[name.lower()] = value
        elif name:
            _log.warning(
                "entry %d of OTEL_EXPORTER_OTLP_HEADERS is not name=value, and is not sent", number
            )
    return found


def _seconds(text: str) -> float:
    """Read a time-out: seconds, as the SDK has it, although the standard has milliseconds."""
    try:
        seconds = float(text or 10)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1000 * _MOST_SECONDS:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_TIMEOUT must be a number of seconds, not {text!r:.80}"
        )
    if seconds < _MOST_SECONDS:
        return seconds
    _warn_of_milliseconds(text)
    return seconds / 1000


@cache  # once for each value
def _warn_of_milliseconds(text: str) -> None:
    _log.warning(
        "OTEL_EXPORTER_OTLP_TIMEOUT=%s is read as milliseconds, as in other languages: the Python "
        "SDK reads seconds.",
        text,
    )


def _compression(text: str) -> str:
    if text.lower() in {"", "none"}:
        return ""
    if text.lower() in {"gzip", "deflate"}:
        return text.lower()
    raise SettingsError(
        f"OTEL_EXPORTER_OTLP_COMPRESSION must be gzip, deflate or none, not {text!r:.80}"
    )
