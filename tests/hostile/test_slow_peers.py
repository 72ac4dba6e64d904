"""Peers that send a byte now and then: each request ends, as it has a deadline as a whole.

The clock advances by a fixed time with each reading, so that the speed of the machine does
not count. Without the deadline they would never end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tapps_otel import clock
from tapps_otel.audit.jaeger_store import JaegerStore
from tapps_otel.errors import SendError, SpansError
from tapps_otel.otel.transport import jaeger
from tapps_otel.otel.transport.client import connect
from tapps_otel.otel.transport.destination import HTTP, Destination
from tapps_otel.settings_model import Settings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n"
BEGINNINGS = {
    "in the status line": b"H",
    "between headers": b"HTTP/1.1 200 OK\r\n",
    "in the body": HEAD,
}
Drip = Callable[[bytes], str]


class Peer(threading.Thread):
    """Answers with a beginning, then byte by byte until the connection is closed."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__(daemon=True)
        self._beginning = beginning
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.left = 0

    def run(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            with connected:
                self._drip(connected)
            self.left += 1

    def _drip(self, connected: socket.socket) -> None:
        try:
            connected.sendall(self._beginning)
            while True:
                connected.sendall(b"x")
                time.sleep(0.002)  # a peer that sends as fast as it can is not slow
        except OSError:
            return

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join()


@pytest.fixture
def drip() -> Iterator[Drip]:
    started: list[Peer] = []

    def start(beginning: bytes) -> str:
        peer = Peer(beginning)
        peer.start()
        started.append(peer)
        return peer.url

    yield start
    for peer in started:
        peer.stop()


class Passing:
    """A clock that advances with each reading.

    :ivar readings: how often the monotonic clock was read
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self.readings = seconds, 0

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        self.readings += 1
        return int(self.readings * self._seconds * 1e9)

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.mark.parametrize("where", BEGINNINGS)
def test_sending_ends(drip: Drip, where: str) -> None:
    client = connect(Destination(HTTP, drip(BEGINNINGS[where])))
    try:
        with clock.use(Passing(0.5)), pytest.raises(SendError, match="does not answer in time"):
            client.send(b"x", patience=10)
    finally:
        client.close()


@pytest.mark.parametrize("where", BEGINNINGS)
def test_comparing_with_a_trace_store_ends(drip: Drip, where: str) -> None:
    with clock.use(Passing(5)), pytest.raises(SpansError, match="does not answer in time"):
        JaegerStore(drip(BEGINNINGS[where]), "ab" * 16)


@pytest.mark.parametrize("where", BEGINNINGS)
def test_looking_for_a_jaeger_ends(drip: Drip, where: str) -> None:
    with clock.use(Passing(0.05)):
        assert jaeger.problem(drip(BEGINNINGS[where])) == "it does not answer in time"


def test_show_waits_for_no_peer_on_this_machine_longer_than_a_moment(
    drip: Drip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaeger, "STACK_URL", drip(BEGINNINGS["between headers"]))
    passing = Passing(0.05)
    with clock.use(passing):
        assert jaeger.url_of(Settings()) is None
    assert passing.readings * 0.05 <= 0.3


def test_show_waits_for_no_connection_that_is_not_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    genuine = socket.create_connection

    def connecting(address: tuple[str, int], timeout: float) -> socket.socket:
        waited.append(timeout)
        return genuine(address, timeout)

    monkeypatch.setattr(socket, "create_connection", connecting)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        queue = [socket.socket() for _ in range(4)]
        try:
            for one in queue:  # they are not accepted: the next one waits
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            monkeypatch.setattr(jaeger, "STACK_URL", url)
            assert jaeger.url_of(Settings()) is None
        finally:
            for one in queue:
                one.close()
    assert sum(waited) <= 0.1


def test_redirects_are_not_followed() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    paths: list[bytes] = []

    def answer() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                paths.append(connected.recv(4096).split()[1])
                connected.sendall(
                    f"HTTP/1.1 302 Found\r\nLocation: http://{host}:{port}/elsewhere\r\n"
                    "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert "302" in str(jaeger.problem(f"http://{host}:{port}"))
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
    assert paths == [b"/api/services"]
