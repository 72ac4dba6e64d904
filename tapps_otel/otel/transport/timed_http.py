"""HTTP requests with a deadline for the whole answer.

The time-out of a socket starts again with every byte, so that a peer which sends one now and then
holds a request for ever. Here what a socket may still wait for is computed before each call. A name
server is not waited for by the socket, and is not covered.

It is imported where a request is made, because `requests` is heavy.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter

from tapps_otel import clock
from tapps_otel.otel.process.http_credentials import OnlyExplicit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["TimedSession", "is_late"]


def is_late(error: BaseException) -> bool:
    """Return whether a request failed because its time was over."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, TimeoutError | requests.Timeout):
            return True
        if isinstance(found.__context__, TimeoutError):  # while the body was read
            return True
        found = next((one for one in found.args if isinstance(one, BaseException)), None)
    return False


class TimedSession(requests.Session):
    """Sends one request at a time, each with a deadline; redirects are not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = OnlyExplicit()
        self._deadline = _Deadline()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _TimedAdapter(self._deadline))

    def fetch(
        self, method: str, url: str, *, seconds: float, idle: float | None = None, **options: Any
    ) -> requests.Response:
        """Send a request, and return the response with its body still to be read.

        :param seconds: for the whole, until the last byte of the body is read
        :param idle: for each byte
        :raises requests.RequestException: also from reading the body
        """
        self._deadline.start(seconds)
        # `localhost` often has two addresses, which are tried one after the other.
        timeout = (seconds / 2, min(idle or seconds, seconds))
        return self.request(
            method, url, timeout=timeout, stream=True, allow_redirects=False, **options
        )


class _Deadline:
    """The moment when the request of a session is over."""

    def __init__(self) -> None:
        self._end_ns = 0

    def start(self, seconds: float) -> None:
        self._end_ns = clock.monotonic_ns() + int(seconds * 1e9)

    def left(self, most: float | None) -> float:
        """Return for how long to wait, at most ``most`` seconds.

        :raises TimeoutError: it is over
        """
        left = (self._end_ns - clock.monotonic_ns()) / 1e9
        if left <= 0:
            raise TimeoutError("timed out")
        return left if most is None else min(left, most)


class _TimedAdapter(HTTPAdapter):
    """Makes connections whose sockets know the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self._time(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        self._time(manager)
        return manager

    def _time(self, manager: Any) -> None:
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {name: self._timed(pool) for name, pool in pools.items()}

    def _timed(self, pool: Any) -> Any:
        if issubclass(pool.ConnectionCls, _TimedConnection):  # a manager that is used again
            return pool
        bases = (_TimedConnection, pool.ConnectionCls)
        connection = type(pool.ConnectionCls.__name__, bases, {"deadline": self._deadline})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _TimedConnection:
    """Added to the connection classes of the library."""

    deadline: _Deadline

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock: Any = _TimedSocket(self.sock, self.deadline)


class _TimedSocket:
    """A connected socket that waits no longer than the deadline allows."""

    def __init__(self, connected: socket.socket, deadline: _Deadline) -> None:
        self._socket, self._deadline = connected, deadline
        self._idle = connected.gettimeout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def settimeout(self, seconds: float | None) -> None:
        self._idle = seconds

    def sendall(self, data: Any) -> None:
        self._limit()
        self._socket.sendall(data)

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(
            _TimedReader(self._socket.makefile("rb", buffering=0), self._limit)
        )

    def _limit(self) -> None:
        self._socket.settimeout(self._deadline.left(self._idle))


class _TimedReader(io.RawIOBase):
    """The reading side of a socket."""

    def __init__(self, raw: socket.SocketIO, limit: Callable[[], None]) -> None:
        self._raw, self._limit = raw, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._limit()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        super().close()
        self._raw.close()
