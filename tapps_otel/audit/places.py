"""Where a run's spans were kept: a file that somebody wrote, or a Jaeger.

Of Jaeger's two interfaces it is API v3, with ``rawTraces``: its answer is OTLP, with times in ns,
types and links as they were sent. The other one rounds times to microseconds.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

from tapps_otel import clock
from tapps_otel.audit.otlp_json import read_spans
from tapps_otel.errors import SpansError
from tapps_otel.log import files as _files
from tapps_otel.otel.client import plain_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.audit.meaning import Meaning

__all__ = ["Place", "place_of"]

_ANSWER: Final = 256 << 20  # bytes: a trace of more than a hundred thousand spans
_SILENCE: Final = 10.0  # seconds without a byte
_PATIENCE: Final = 120.0  # seconds for all of an answer
_BLOCK: Final = 1 << 18
_TEXT: Final = 200  # characters of an answer that are passed on


class Place:
    """Spans that somebody else keeps. They can be read more than once.

    :param name: what it is called in messages, without secrets
    :param whole: opens what is there, as OTLP JSON lines
    :ivar lacks: names of a span's fields that it does not keep; see :mod:`.meaning`
    :ivar notes: what was passed over in reading it
    """

    def __init__(
        self, name: str, whole: Callable[[], BinaryIO], lacks: frozenset[str] = frozenset()
    ) -> None:
        self.name, self.lacks = name, lacks
        self.notes: list[str] = []
        self._open = whole

    def spans(self, wanted: Callable[[str, str], bool]) -> Iterator[Meaning]:
        """Its spans, streamed.

        :param wanted: whether spans of this trace id and of this scope's name are asked for
        :raises SpansError: they cannot be read
        """
        self.notes.clear()
        with self._open() as file:
            yield from read_spans(file, self.name, wanted, self.notes)


def place_of(against: str, trace_id: str | None) -> Place:
    """A file of OTLP JSON lines, or the address of a Jaeger query service.

    :param trace_id: of the run; what Jaeger is asked for
    :raises SpansError: there is no such file, no answer, or one that is no Jaeger's
    """
    if against.lower().startswith(("http://", "https://")):
        return _jaeger(against, trace_id)
    path = Path(against)
    return Place(str(path), partial(_open, path))


def _open(path: Path) -> BinaryIO:
    try:
        return _files.system().open_given(path)
    except OSError as error:
        raise SpansError(
            str(path), f"it cannot be opened: {error.strerror or error}. Give a file or a URL"
        ) from None


# ---------------------------------------------------------------- Jaeger


def _jaeger(url: str, trace_id: str | None) -> Place:
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    if trace_id is None:
        raise SpansError(name, "the log has no trace to ask for")
    answer = _Question(name, f"{base}/api/v3/traces/{trace_id}?rawTraces=true").answer()
    return Place(name, partial(io.BytesIO, answer))


class _Question:
    def __init__(self, name: str, url: str) -> None:
        self._name, self._url = name, url

    def answer(self) -> bytes:
        """The answer to a GET request; nothing if the trace is unknown there.

        :raises SpansError: none came, or one that is no Jaeger's
        """
        import requests

        try:
            with requests.get(
                self._url, timeout=_SILENCE, stream=True, allow_redirects=False
            ) as response:
                return self._judge(response, self._read(response))
        except requests.Timeout:
            raise self._refusal("it does not answer in time") from None
        except requests.RequestException as error:
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
        kind = str(response.headers.get("Content-Type", "")).partition(";")[0].strip()
        code = response.status_code
        if kind == "text/html":
            raise self._refusal(
                "it answered with a web page: give the address of a Jaeger, with its path prefix "
                "if it has one, as http://localhost:16686"
            )
        if code == 404 and kind == "application/json":
            return b""
        if code != 200:
            said = body[:_TEXT].decode(errors="replace").strip()
            place = str(response.headers.get("Location", ""))
            text = f"it answered {code}"
            text += f", see {place[:_TEXT]}" if place else f": {said}" if said else ""
            raise self._refusal(
                f"{text}. Is this the address of a Jaeger (http://localhost:16686)?"
            )
        return body

    def _refusal(self, reason: str) -> SpansError:
        return SpansError(self._name, reason)
