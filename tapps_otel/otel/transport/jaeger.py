"""Links to traces in Jaeger, and whether it answers.

The links are those of Jaeger's own pages, ``/trace/{trace id}``; the requests are those of its
query service's HTTP interface, ``/api/services`` and ``/api/traces/{trace id}``.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tapps_otel.settings_model import Settings

__all__ = ["STACK_URL", "has_trace", "problem", "trace_url", "url_of"]

STACK_URL: Final = "http://localhost:16686"
"""The Jaeger that ``docker compose up`` or ``collector/stack.sh up`` starts."""

_WAIT: Final = 1.0  # seconds for a whole answer
_CONNECT: Final = 0.05  # seconds for this machine to accept a connection, at each of two addresses
_PROBE: Final = 0.2  # seconds for an answer from this machine to who asked for none
_FIRST_BYTES: Final = 64  # of an answer: enough to tell Jaeger's JSON from a web page


def url_of(settings: Settings) -> str | None:
    """Return the Jaeger of the settings; else the stack's, if it answers within 0.3 s."""
    if settings.jaeger_url is not None:
        return settings.jaeger_url.rstrip("/")
    # A connection is tried first: where nothing listens, nothing heavy is imported.
    found = _listens(STACK_URL) and problem(STACK_URL, _PROBE) is None
    return STACK_URL if found else None


def trace_url(url: str, trace_id: str | None) -> str | None:
    """Return the page of a trace; ``None`` for an id that is not valid."""
    if trace_id is None or not re.fullmatch("[0-9a-f]{32}", trace_id):
        return None
    return f"{url}/trace/{trace_id}"


def problem(url: str, seconds: float = _WAIT) -> str | None:
    """Return why traces cannot be seen there; ``None``: a Jaeger answers."""
    code, text = _ask(url, "/api/services", seconds)
    return None if code == 200 else text


def has_trace(url: str, trace_id: str) -> bool:
    """Whether that Jaeger has this trace; ``False`` also without an answer."""
    return _ask(url, f"/api/traces/{trace_id}", _WAIT)[0] == 200


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), _CONNECT).close()
    except OSError:
        return False
    return True


def _ask(url: str, path: str, seconds: float) -> tuple[int, str]:
    """Return the status of Jaeger's answer, 0 if none of its came, and what is wrong."""
    import requests

    from tapps_otel.otel.transport.timed_http import TimedSession, is_late

    try:
        with TimedSession() as session, session.fetch("GET", url + path, seconds=seconds) as answer:
            begin = next(answer.iter_content(_FIRST_BYTES), b"")
    except requests.RequestException as error:
        if is_late(error):
            return 0, "it does not answer in time"
        if isinstance(error, requests.ConnectionError):
            return 0, "nothing answers there"
        return 0, f"the request fails: {type(error).__name__}"
    if answer.status_code in {401, 403}:
        return 0, f"it answered {answer.status_code}: it requires credentials"
    if not begin.lstrip().startswith(b'{"data":'):
        return 0, f"what answers there ({answer.status_code}) is not a Jaeger"
    return answer.status_code, f"it answered {answer.status_code}"
