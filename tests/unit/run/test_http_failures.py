"""Failures of HTTP libraries: what a handler decides by is the same after a crash, or is refused.

The responses come from a real server, through real connections.
"""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from crashes import die_at, go, killed
from handled_failures import both, handling
from tapps_otel import register_codec, step, workflow
from tapps_otel.errors import FailureDetailError
from tapps_otel.run.codecs.registration import unregister_codec

SECRETS = ("hunter2", "s3ss10n", "t0k3n")
BODY = json.dumps({"error": {"code": "over_limit", "text": "zu viel: ü"}}, ensure_ascii=False)
Log = Callable[..., list[dict[str, Any]]]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path: ``/limit`` 429, ``/large`` 500 with a large body, ``/moved`` 302."""

    def do_GET(self) -> None:
        body = {"/large": b"x" * 100_000, "/bytes": b"\xff\x00"}.get(self.path, BODY.encode())
        self.send_response({"/limit": 429, "/moved": 302}.get(self.path, 500))
        if self.path == "/moved":
            self.send_header("Location", "/limit")
        if self.path == "/limit":
            self.send_header("Set-Cookie", f"id={SECRETS[1]}")
        if self.path == "/zipped":
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Retry-After", "17")
        self.send_header("X-RateLimit-Remaining-Tokens", "0")
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the base's name

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


HEADERS = {"Authorization": f"Bearer {SECRETS[0]}", "X-Api-Key": SECRETS[2], "X-Tenant": "shop"}


def with_httpx(address: str, path: str, **options: Any) -> None:
    with httpx.Client(headers=HEADERS, **options) as client:
        client.get(address + path).raise_for_status()


def with_requests(address: str, path: str, **options: Any) -> None:
    with requests.Session() as session:
        session.headers.update(HEADERS)
        session.get(address + path, **options).raise_for_status()


def httpx_streaming(address: str, path: str) -> None:
    with httpx.Client() as client, client.stream("GET", address + path) as response:
        response.raise_for_status()


def requests_streaming(address: str, path: str) -> None:
    with requests.get(address + path, stream=True) as response:
        response.raise_for_status()


def httpx_posting(address: str, path: str) -> None:
    httpx.post(address + path, json={"password": SECRETS[0]}).raise_for_status()


def requests_posting(address: str, path: str) -> None:
    requests.post(address + path, json={"password": SECRETS[0]}).raise_for_status()


async def httpx_async(address: str, path: str) -> None:
    async with httpx.AsyncClient() as client:
        (await client.get(address + path)).raise_for_status()


def seen_in(error: Any) -> dict[str, Any]:
    """What handlers ask of an HTTP error."""
    response = error.response
    request = response.request
    return {
        "class": isinstance(response, (httpx.Response, requests.Response)),
        "kinds": [isinstance(error, kind) for kind in (httpx.HTTPError, requests.HTTPError)],
        "status": response.status_code,
        "url": str(response.url),
        "headers": [response.headers["retry-after"], response.headers.get("nothing")],
        "names": sorted(name.lower() for name in response.headers),
        "tokens": response.headers["X-RateLimit-Remaining-Tokens"],
        "cookie": "set-cookie" in response.headers,
        "content": response.content,
        "text": response.text,
        "encoding": response.encoding,
        "error": _json_of(response),
        "ok": [response.is_redirect, getattr(response, "is_client_error", bool(response))],
        "reason": getattr(response, "reason_phrase", None) or response.reason,
        "version": getattr(response, "http_version", None),
        "elapsed": type(response.elapsed),
        "history": [(one.status_code, one.headers["location"]) for one in response.history],
        "method": request.method,
        "to": str(request.url),
        "tenant": request.headers.get("x-tenant"),
        "authorized": "authorization" in request.headers,
        "same": str(error.request.url) == str(request.url),
        "again": _raised(response.raise_for_status),
        "shown": [str(response), str(request), str(error)],
    }


def _json_of(response: Any) -> Any:
    try:
        return response.json()["error"]["code"]
    except ValueError as error:
        return str(error)


def _raised(call: Callable[[], object]) -> str:
    try:
        call()
    except (httpx.HTTPStatusError, requests.HTTPError) as error:
        return f"{type(error)} {error}"
    return "nothing"


@pytest.mark.parametrize("path", ["/limit", "/error", "/zipped", "/bytes"])
@pytest.mark.parametrize("get", [with_httpx, with_requests])
def test_a_handler_sees_the_same_response_after_a_crash(
    get: Callable[..., None], path: str, address: str
) -> None:
    uncrashed, resumed = both(handling(get, seen_in, address, path))

    assert resumed == uncrashed
    assert uncrashed["headers"] == ["17", None]
    assert uncrashed["error"] == "over_limit" or path == "/bytes"


@pytest.mark.parametrize(
    ("get", "options"),
    [(with_httpx, {"follow_redirects": True}), (with_requests, {"allow_redirects": True})],
)
def test_the_history_of_a_response_is_kept(
    get: Callable[..., None], options: dict[str, Any], address: str
) -> None:
    uncrashed, resumed = both(handling(get, seen_in, address, "/moved", **options))

    assert resumed == uncrashed
    assert [status for status, _ in resumed["history"]] == [302]


def test_a_redirect_that_was_not_followed_has_its_next_request(address: str) -> None:
    def look(error: httpx.HTTPStatusError) -> Any:
        following = error.response.next_request
        return following and [following.method, following.url, following.headers["x-tenant"]]

    uncrashed, resumed = both(handling(with_httpx, look, address, "/moved"))

    assert resumed == uncrashed
    assert resumed[1] == httpx.URL(f"{address}/limit")


def test_the_response_of_an_async_client_is_kept(address: str) -> None:
    failing = step(httpx_async)
    seen = []

    @step
    async def after() -> None:
        die_at("after")

    @workflow
    async def flow() -> None:
        found: Any = None
        try:
            await failing(address, "/limit")
        except httpx.HTTPStatusError as error:
            response = error.response
            found = [response.status_code, response.json(), await response.aread(), response.links]
            await response.aclose()
        await after()
        seen.append(found)

    go(flow, workflow_id="uncrashed")
    killed(lambda: go(flow), at="after")
    go(flow)

    assert seen[0] == seen[1]
    assert seen[0][0] == 429


@pytest.mark.parametrize("get", [with_httpx, with_requests, httpx_posting, requests_posting])
def test_no_credential_is_written(get: Callable[..., None], address: str, tmp_path: Any) -> None:
    killed(lambda: go(handling(get, str, address, "/limit")), at="after")

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert not [one for one in SECRETS if one.encode() in path.read_bytes()], path
        assert b"over_limit" in path.read_bytes() or path.suffix != ".jsonl"


Look = Callable[[Any], Any]
LOST: list[tuple[Any, str, Look, str]] = [
    (
        with_httpx,
        "/limit",
        lambda e: e.request.headers["authorization"],
        "headers['authorization']",
    ),
    (with_httpx, "/limit", lambda e: e.request.headers.get("x-api-key"), "headers['x-api-key']"),
    (with_httpx, "/limit", lambda e: e.request.headers.get_list("X-API-KEY"), "'X-API-KEY'"),
    (with_httpx, "/limit", lambda e: dict(e.request.headers), "headers['authorization']"),
    (with_httpx, "/limit", lambda e: httpx.Headers(e.request.headers), "headers['authorization']"),
    (with_httpx, "/limit", lambda e: e.request.headers.copy(), "headers['authorization']"),
    (with_httpx, "/limit", lambda e: e.request.headers.raw, "headers['authorization']"),
    (with_httpx, "/limit", lambda e: e.response.cookies, "headers["),
    (with_httpx, "/limit", lambda e: e.response.headers["set-cookie"], "headers['set-cookie']"),
    (with_httpx, "/limit", lambda e: e.response.extensions["network_stream"], "network_stream"),
    (with_httpx, "/limit", lambda e: e.response.num_bytes_downloaded, "num_bytes_downloaded"),
    (with_httpx, "/large", lambda e: e.response.text, "Response.text"),
    (with_httpx, "/large", lambda e: e.response.json(), "Response.json"),
    (with_httpx, "/large", lambda e: e.response.read(), "Response.read"),
    (with_httpx, "/large", lambda e: list(e.response.iter_lines()), "Response.iter_lines"),
    (httpx_streaming, "/limit", lambda e: e.response.read(), "Response.read"),
    (httpx_posting, "/limit", lambda e: e.request.content, "Request.content"),
    (httpx_posting, "/limit", lambda e: e.request.read(), "Request.read"),
    (httpx_posting, "/limit", lambda e: httpx.Client().send(e.request), "Request.stream"),
    (with_requests, "/limit", lambda e: e.request.headers["Authorization"], "'Authorization'"),
    (with_requests, "/limit", lambda e: dict(e.request.headers), "Authorization"),
    (with_requests, "/limit", lambda e: e.request.copy(), "headers['authorization']"),
    (with_requests, "/limit", lambda e: e.response.cookies, "Response.cookies"),
    (with_requests, "/limit", lambda e: e.response.raw, "Response.raw"),
    (with_requests, "/limit", lambda e: e.response.connection, "Response.connection"),
    (with_requests, "/large", lambda e: e.response.text, "Response.text"),
    (with_requests, "/large", lambda e: e.response.json(), "Response.json"),
    (with_requests, "/large", lambda e: list(e.response), "Response.iter_content"),
    (requests_streaming, "/limit", lambda e: e.response.content, "Response.content"),
    (requests_posting, "/limit", lambda e: e.request.body, "PreparedRequest.body"),
]


@pytest.mark.parametrize(("get", "path", "look", "name"), LOST)
def test_what_is_not_kept_refuses_to_be_read(
    get: Any, path: str, look: Look, name: str, address: str
) -> None:
    """And no handler hides that: it is raised again when the next step is called."""
    asked: list[Exception] = []

    def ask(error: Any) -> Any:
        status = error.response.status_code
        try:
            look(error)
        except Exception as refused:  # noqa: BLE001 - what it swallows
            asked.append(refused)
        return status

    killed(
        lambda: go(handling(get, lambda error: error.response.status_code, address, path)),
        at="after",
    )
    with pytest.raises(FailureDetailError, match="resolve r failing --rerun") as caught:
        go(handling(get, ask, address, path))

    assert name in caught.value.detail
    assert asked == [caught.value]


@pytest.mark.parametrize("get", [httpx_streaming, requests_streaming, with_httpx, with_requests])
def test_a_rebuilt_response_can_be_closed(get: Callable[..., None], address: str) -> None:
    def look(error: Any) -> int:
        error.response.close()
        status: int = error.response.status_code
        return status

    assert both(handling(get, look, address, "/large")) == (500, 500)


@pytest.mark.parametrize("get", [with_httpx, with_requests])
def test_a_password_in_an_address_is_not_kept_in_the_response(
    get: Callable[..., None], address: str, log: Log
) -> None:
    secret = address.replace("://", f"://ann:{SECRETS[0]}@")

    flow = handling(get, lambda error: error.response.status_code, secret, "/limit")
    killed(lambda: go(flow), at="after")

    (event,) = log("step_fail")
    assert SECRETS[0] not in json.dumps(event["error"]["attributes"])
    with pytest.raises(FailureDetailError, match="url"):
        go(handling(get, lambda error: error.response.url, secret, "/limit"))


def test_a_failure_that_was_raised_again_is_written_once_more(address: str) -> None:
    """An outer step that ends by it, in an execution in which it came from the log."""

    @step
    def failing() -> None:
        with_httpx(address, "/limit")

    @step
    def after(point: str) -> None:
        die_at(point)

    @step
    def outer() -> None:
        try:
            failing()
        except httpx.HTTPStatusError:
            after("inside")
            raise

    @workflow
    def flow() -> Any:
        found = None
        try:
            outer()
        except httpx.HTTPStatusError as error:
            found = [error.response.status_code, error.response.text]
            with pytest.raises(KeyError):
                error.response.headers["nothing"]
        after("outside")
        return found

    killed(lambda: go(flow), at="inside")
    killed(lambda: go(flow), at="outside")

    assert go(flow) == [429, BODY]


def test_a_connection_error_has_its_request() -> None:
    def get() -> None:
        httpx.get("http://127.0.0.1:9/nobody", headers=HEADERS)

    def look(error: httpx.ConnectError) -> Any:
        return [error.request.method, error.request.url, error.request.headers["host"], str(error)]

    uncrashed, resumed = both(handling(get, look))
    assert resumed == uncrashed


def test_a_codec_of_the_users_comes_first(address: str) -> None:
    def look(error: httpx.HTTPStatusError) -> Any:
        return error.response.headers.get("x-marked")

    register_codec(
        httpx.Response,
        lambda response: response.status_code,
        lambda status: httpx.Response(status, headers={"x-marked": "yes"}),
    )
    try:
        _, resumed = both(handling(with_httpx, look, address, "/limit"))
    finally:
        unregister_codec(httpx.Response)
    assert resumed == "yes"
