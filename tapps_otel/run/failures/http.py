"""What exceptions of httpx and requests hold: responses, requests, headers, as JSON and back.

A handler decides by the status, the headers, the address, the body of the response: those are kept,
in objects of the library's own classes. Credentials are not written, nor the body of a request, nor
what only an open connection has: reading that is refused.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

from tapps_otel.run.codecs.native import NotStorableError, class_name
from tapps_otel.run.failures.lost import PartialMapping, Refuse, lost_details, partial_class

__all__ = ["LOST", "HttpForm", "http_form"]

_BODY_LIMIT: Final = 32 * 1024  # bytes of a body as JSON
LOST: Final = "lost"
_PLAIN: Final = "_tapps_plain"  # on headers some of which are lost: the others
_CREDENTIAL: Final = "a credential, which is not written into a log"
_UNREAD: Final = "it was not read when the step failed"
_SECRET_WORDS: Final = frozenset(
    {"auth", "authorization", "cookie", "cookie2", "credential", "credentials", "passwd",
     "password", "secret", "session", "signature", "token"}
)  # fmt: skip
_SECRET_PARTS: Final = ("api-key", "apikey", "access-key", "subscription-key", "private-key")
Part = Callable[[Any], Any]


class HttpForm(NamedTuple):
    """How the objects of one class are written and made again."""

    write: Callable[[Any, Part], Any]
    make: Callable[[Any, Any, Part, Refuse], Any]


def http_form(kind: type) -> HttpForm | None:
    """The form of a class of these libraries; ``None`` for any other class."""
    return _FORMS.get(class_name(kind))


class _Fields:
    """The form of an object while it is written: what is kept of it, and what is lost and why."""

    def __init__(self, value: Any, part: Part) -> None:
        self._value, self._part = value, part
        self.kept: dict[str, Any] = {}
        self.lost = dict(lost_details(value))

    def keep(self, *names: str) -> None:
        """Keep attributes."""
        for name in names:
            self.put(name, partial(getattr, self._value, name))

    def put(self, name: str, get: Callable[[], Any]) -> None:
        """Keep what ``get`` returns, unless that cannot be written, or was lost before."""
        if name not in self.lost:
            try:
                self.kept[name] = self._part(get())
            except NotStorableError as problem:
                self.lost[name] = problem.problem

    def put_content(self, get: Callable[[], Any]) -> None:
        """Keep the body of a response, unless it is large."""
        self.put("content", get)
        size = len(json.dumps(self.kept.get("content")))
        if size > _BODY_LIMIT:
            del self.kept["content"]
            self.lost["content"] = f"its JSON has {size} bytes, of at most {_BODY_LIMIT}"

    def lose(self, *names: str, why: str) -> None:
        """Give up attributes, where there are any."""
        for name in names:
            if name not in self.lost and getattr(self._value, name, None):
                self.lost[name] = why

    def form(self) -> dict[str, Any]:
        """What is kept, and what is lost with the reasons."""
        return self.kept | ({LOST: self.lost} if self.lost else {})


def _open(
    kind: type, data: dict[str, Any], refuse: Refuse, readers: tuple[str, ...], **body: Any
) -> tuple[Any, dict[str, str]]:
    """The class to make an object of, and what that has lost.

    :param readers: what is lost with the content
    :param body: more of the class, where something is lost
    """
    lost = dict(data.get(LOST, {}))
    if "content" in lost:
        lost |= dict.fromkeys(readers, lost["content"])
    if not lost:
        return kind, lost
    return partial_class((kind,), lost, refuse, body, prefix=f"{kind.__name__}."), lost


def _close(made: Any, lost: dict[str, str]) -> Any:
    """Remove what the constructor set in place of what is lost."""
    for name in lost:
        made.__dict__.pop(name, None)
    return made


def _empty(body: Any) -> Any:
    """The body of a request.

    :raises NotStorableError: it has one
    """
    if body:
        raise NotStorableError("the body of a request is not written into a log")
    return body


def _without_password(address: Any) -> Any:
    """An address as text.

    :raises NotStorableError: there is a password in it
    """
    if address and "@" in urlsplit(address).netloc:
        raise NotStorableError(f"with its user name, {_CREDENTIAL}")
    return address


def _or_none(get: Callable[[], Any]) -> Any:
    """An attribute; ``None`` where the library says that the object has none."""
    try:
        return get()
    except RuntimeError:
        return None


# ---------------------------------------------------------------- headers


def _write_headers(pairs: Callable[[Any], Any]) -> Callable[[Any, Part], Any]:
    def write(value: Any, part: Part) -> Any:
        known = pairs(getattr(value, _PLAIN, value))
        return [[name, None if _is_secret(name) else part(item)] for name, item in known]

    return write


def _make_headers(
    store: str, make: Callable[[Any, Any], Any]
) -> Callable[[Any, Any, Part, Refuse], Any]:
    def headers(kind: Any, data: Any, part: Part, refuse: Refuse) -> Any:
        items = [(name, "" if item is None else part(item)) for name, item in data]
        plain = make(kind, items)
        secret = {name.lower() for name, item in data if item is None}
        return _partial_headers(kind, store, plain, secret, refuse) if secret else plain

    return headers


def _partial_headers(kind: Any, store: str, plain: Any, secret: set[str], refuse: Refuse) -> Any:
    """Headers that tell their names, and values other than credentials.

    :param store: the attribute by which the class's own methods get at all values: what is not
        defined here is refused there
    """

    def readable(name: str) -> str:
        return _refused(name) if name.lower() in secret else name

    def _refused(name: str) -> NoReturn:
        refuse(f"headers[{name!r}]", _CREDENTIAL)

    body = {
        _PLAIN: plain,
        store: property(lambda _: _refused(min(secret))),
        "__getitem__": lambda _, name: plain[readable(name)],
        "get_list": lambda _, name, *args, **kwargs: plain.get_list(
            readable(name), *args, **kwargs
        ),
        "__contains__": lambda _, name: name in plain,
        "__iter__": lambda _: iter(plain),
        "__len__": lambda _: len(plain),
        "keys": lambda _: plain.keys(),
        "encoding": property(lambda _: plain.encoding),
        "__repr__": lambda _: f"<{kind.__name__} {list(plain)}, without credentials>",
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    return object.__new__(type(kind)(kind.__name__, (kind,), body))


def _is_secret(name: str) -> bool:
    name = name.lower()
    return any(part in name for part in _SECRET_PARTS) or not _SECRET_WORDS.isdisjoint(
        name.replace("_", "-").split("-")
    )


def _httpx_pairs(headers: Any) -> Any:
    # Any bytes can be Latin-1; most are ASCII.
    return [(name.decode("latin-1"), item.decode("latin-1")) for name, item in headers.raw]


def _httpx_headers(kind: Any, items: list[tuple[str, str]]) -> Any:
    return kind([(name.encode("latin-1"), item.encode("latin-1")) for name, item in items])


# ---------------------------------------------------------------- httpx

_HTTPX_READERS: Final = (
    "text", "json", "read", "aread", "stream", "iter_bytes", "iter_text", "iter_lines", "iter_raw",
    "aiter_bytes", "aiter_text", "aiter_lines", "aiter_raw",
)  # fmt: skip


def _write_httpx_response(value: Any, part: Part) -> Any:
    fields = _Fields(value, part)
    fields.keep("status_code", "headers", "history", "next_request", "is_closed")
    fields.keep("is_stream_consumed")
    fields.put("request", lambda: _or_none(lambda: value.request))
    fields.put("elapsed", lambda: _or_none(lambda: value.elapsed))
    fields.put("default_encoding", lambda: value.default_encoding)
    fields.kept["extensions"] = _write_extensions(value.extensions, part)
    try:
        fields.put_content(lambda: value.content)
    except RuntimeError:
        fields.lost["content"] = _UNREAD
    if "content" in fields.kept:  # else its encoding may not be known yet
        fields.keep("encoding")
    fields.lose("num_bytes_downloaded", why="what a connection has counted")
    return fields.form()


async def _do_nothing(_: object) -> None:
    """Close what has no connection."""


def _make_httpx_response(kind: Any, data: dict[str, Any], part: Part, refuse: Refuse) -> Any:
    cls, lost = _open(kind, data, refuse, _HTTPX_READERS, close=lambda _: None, aclose=_do_nothing)
    made = cls(
        data["status_code"],
        history=part(data.get("history", [])),
        default_encoding=data.get("default_encoding", "utf-8"),
        **_httpx_body(data, part),
    )
    made.headers = part(data["headers"])  # not before: its content is not encoded any longer
    made.extensions = _make_extensions(data["extensions"], part, refuse)
    for name in ("request", "elapsed", "next_request", "encoding"):
        if data.get(name) is not None:
            setattr(made, name, part(data[name]))
    made.is_closed, made.is_stream_consumed = data["is_closed"], data["is_stream_consumed"]
    if "request" in lost:
        lost["_request"] = lost["request"]
    return _close(made, lost)


def _write_httpx_request(value: Any, part: Part) -> Any:
    fields = _Fields(value, part)
    fields.keep("method", "url", "headers")
    fields.kept["extensions"] = _write_extensions(value.extensions, part)
    try:
        fields.put("content", lambda: _empty(value.content))
    except RuntimeError:
        fields.lost["content"] = _UNREAD
    return fields.form()


def _make_httpx_request(kind: Any, data: dict[str, Any], part: Part, refuse: Refuse) -> Any:
    cls, lost = _open(kind, data, refuse, ("read", "aread", "stream"))
    made = cls(data["method"], part(data.get("url", "")), **_httpx_body(data, part))
    made.headers = part(data["headers"])
    made.extensions = _make_extensions(data["extensions"], part, refuse)
    return _close(made, lost)


def _httpx_body(data: dict[str, Any], part: Part) -> dict[str, Any]:
    """What a constructor gets for the content, or in place of it."""
    if "content" in data:
        return {"content": part(data["content"])}
    return {"stream": sys.modules["httpx"].ByteStream(b"")}


def _write_extensions(value: Any, part: Part) -> dict[str, Any]:
    """What the transport said, as far as it can be written: not its connection."""
    known, lost = value.parts() if isinstance(value, PartialMapping) else (value, {})
    kept, lost = {}, dict(lost)
    for name, item in known.items():
        try:
            kept[name] = part(item)
        except NotStorableError as problem:
            lost[name] = problem.problem
    return {"kept": kept, LOST: lost}


def _make_extensions(data: dict[str, Any], part: Part, refuse: Refuse) -> Any:
    kept = part(data["kept"])
    return PartialMapping(kept, data[LOST], refuse) if data[LOST] else kept


# ---------------------------------------------------------------- requests

_REQUESTS_READERS: Final = (
    "text", "json", "iter_content", "iter_lines", "apparent_encoding", "_content",
)  # fmt: skip


def _write_requests_response(value: Any, part: Part) -> Any:
    fields = _Fields(value, part)
    fields.keep("status_code", "headers", "encoding", "reason", "history", "elapsed", "request")
    fields.keep("cookies")
    fields.put("url", lambda: _without_password(value.url))
    fields.lose("raw", "connection", why="of an open connection")
    fields.lose("next", why="a request that was not made")
    fields.put_content(lambda: _requests_content(value))
    return fields.form()


def _requests_content(value: Any) -> bytes | None:
    """The content of a response, if it was read: to read it would use the connection.

    :raises NotStorableError: it was not
    """
    if not vars(value).get("_content_consumed") and value.raw is not None:
        raise NotStorableError(_UNREAD)
    content: bytes | None = value.content
    return content


def _make_requests_response(kind: Any, data: dict[str, Any], part: Part, refuse: Refuse) -> Any:
    # There is no connection to release.
    cls, lost = _open(kind, data, refuse, _REQUESTS_READERS, close=lambda _: None)
    made = cls()
    for name in data.keys() - {"content", LOST}:
        setattr(made, name, part(data[name]))
    if "content" in data:
        content = part(data["content"])
        made.raw = None if content is None else io.BytesIO(content)
        _ = made.content  # reads it
        made.raw = None
    return _close(made, lost)


def _write_requests_request(value: Any, part: Part) -> Any:
    fields = _Fields(value, part)
    fields.keep("method", "headers")
    fields.put("url", lambda: _without_password(value.url))
    fields.put("body", lambda: _empty(value.body))
    if any(value.hooks.values()):
        fields.lost["hooks"] = "functions"
    return fields.form()


def _make_requests_request(kind: Any, data: dict[str, Any], part: Part, refuse: Refuse) -> Any:
    cls, lost = _open(kind, data, refuse, ())
    made = cls()
    for name in data.keys() - {LOST}:
        setattr(made, name, part(data[name]))
    return _close(made, lost)


def _write_cookies(value: Any, _: Part) -> Any:
    if len(value):
        raise NotStorableError(_CREDENTIAL)
    return []


def _write_url(value: Any, _: Part) -> Any:
    return _without_password(str(value))


_FORMS: Final = {
    "httpx.Headers": HttpForm(_write_headers(_httpx_pairs), _make_headers("_list", _httpx_headers)),
    "httpx.Request": HttpForm(_write_httpx_request, _make_httpx_request),
    "httpx.Response": HttpForm(_write_httpx_response, _make_httpx_response),
    "httpx.URL": HttpForm(_write_url, lambda kind, data, *_: kind(data)),
    "requests.cookies.RequestsCookieJar": HttpForm(_write_cookies, lambda kind, *_: kind()),
    "requests.models.PreparedRequest": HttpForm(_write_requests_request, _make_requests_request),
    "requests.models.Response": HttpForm(_write_requests_response, _make_requests_response),
    "requests.structures.CaseInsensitiveDict": HttpForm(
        _write_headers(lambda headers: headers.items()),
        _make_headers("_store", lambda kind, items: kind(items)),
    ),
}
