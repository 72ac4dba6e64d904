"""Homes of runs: where logs are kept besides their local files, so that any machine can resume.

The local file comes first. A home gets the same bytes, line by line and in order, and an event that
ends a step is acknowledged once both are as safe as promised. A resume reads the local file: what
it lacks is pulled before that. So nothing that reads a log knows of homes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tapps_otel.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.summary import RunSummary
    from tapps_otel.settings_model import Settings

__all__ = [
    "NO_LINES",
    "Copy",
    "Head",
    "Holder",
    "Home",
    "Session",
    "TakenOverError",
    "UnconfirmedError",
    "blobs_named_in",
    "home_of",
]

Holder = tuple[int | None, str | None]
_BLOB: Final = re.compile(rb'"(?:inputs|result|otel)_blob":"([0-9a-f]{64})"')


class TakenOverError(OSError):
    """Another process has taken a run in its home; this one may not write it any more.

    :ivar holder: that process
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        super().__init__(f"process {holder[0] or '?'} on {holder[1] or '?'} executes the run")


class UnconfirmedError(OSError):
    """A home did not confirm in time that it has what the local file has."""

    def __init__(self, home: str, problem: str) -> None:
        self._text = f"the store {home} has not confirmed it: {problem}"
        super().__init__(self._text)

    def __str__(self) -> str:
        return self._text


class Head(NamedTuple):
    """The last line of a log: its ``seq``, 0 if there is none, and its ``sha``."""

    seq: int
    sha: bytes


NO_LINES: Final = Head(0, b"")


class Copy(Protocol):
    """A log in a home, as it was when it was looked at."""

    @property
    def name(self) -> str:
        """The name of the log."""

    @property
    def store(self) -> str:
        """The address of the home, without password."""

    @property
    def head(self) -> Head:
        """Its last line."""

    def sha(self, seq: int) -> bytes | None:
        """Return the ``sha`` of a line; ``None`` if it has no such line."""

    def content(self, after: int) -> Iterator[bytes]:
        """Yield the bytes after the line of this ``seq``, in pieces of several lines."""

    def blob(self, name: str) -> bytes | None:
        """Return a large value; ``None`` if it is not there."""


class Session(Protocol):
    """The right to write one log in a home, until it is released or lost.

    Only :meth:`wait` and :meth:`keep` wait. Once a connection is lost, and whenever it is in doubt
    what the home has, lines go to the local file alone until one of them has sent what it lacks.
    """

    def prepare(self, path: Path) -> int:
        """Let the local file have all lines that the home has; the caller has it under a lease.

        A file that has other lines is set aside. Only its end is read.

        :returns: the seq of the home's last line
        :raises TakenOverError: another process has taken the run
        :raises LogError: the file is damaged, or the home cannot be reached
        :raises OSError: it cannot be written
        """

    def catch_up(self, path: Path) -> None:
        """Send the lines that only the local file has, and keep it to look for others.

        :raises TakenOverError: another process has taken the run
        :raises OSError: the home did not confirm them in time
        """

    def has_all(self, head: Head) -> bool:
        """Return whether this is the last line that the home has."""

    def send(self, event: Event, line: bytes, *, due: bool) -> None:
        """Send a line that was written to the local file. It neither waits nor raises.

        :param due: :meth:`begin` follows: it need not be on its way before
        """

    def keep(self) -> None:
        """Find out whether the run is this process's; waits only if the connection has ended.

        :raises TakenOverError: another process has taken the run, from now on each time
        :raises OSError: the connection has ended, and the home cannot be reached in time
        """

    def begin(self, seq: int) -> None:
        """Ask the home to make all lines up to this one as safe as promised."""

    def wait(self) -> None:
        """Wait until what :meth:`begin` asked for is done.

        :raises TakenOverError: another process has taken the run, from now on each time
        :raises OSError: the home did not confirm it in time
        """

    def release(self) -> None:
        """Give the run free, with all lines in the home; a second call does nothing."""

    def detach(self) -> None:
        """Forget it in a forked child: it is the parent's."""


class Home(Protocol):
    """Where the logs of many machines are kept."""

    @property
    def shown(self) -> str:
        """Its address, without password."""

    def take(self, name: str) -> Session:
        """Take the right to write a log.

        :raises RunBusyError: another process has it
        :raises StoreError: the home cannot be reached or used
        """

    def holder(self, name: str) -> Holder | None:
        """Return which process may write a log; ``None`` if none does.

        :raises StoreError: the home cannot be reached or used
        """

    def copies(self, name: str) -> AbstractContextManager[list[Copy]]:
        """Return a context with what the home has of a run: its log first, then its side logs.

        :raises StoreError: the home cannot be reached or used
        """

    def names(self, prefix: str) -> list[str]:
        """Return the runs whose ids begin like this, the one written to last first.

        :raises StoreError: the home cannot be reached or used
        """

    def summaries(self, since_ns: int = 0) -> Iterator[RunSummary]:
        """Yield the runs, the one written to last first.

        :param since_ns: only runs written to at this time or later, ns since 1970 UTC
        :raises StoreError: the home cannot be reached or used
        """

    def has_agent(self, name: str, agent: str) -> bool:
        """Return whether a run has a step of this agent.

        :raises StoreError: the home cannot be reached or used
        """

    def migrate(self) -> tuple[int, int]:
        """Make what the home needs, or bring it up to date; return the version before and now.

        :raises StoreError: the home cannot be reached, or is newer
        """


def home_of(config: Settings) -> Home | None:
    """Return the home that the settings name, if they do.

    :raises SettingsError: what it needs is not installed
    """
    if config.store is None:
        return None
    try:
        from tapps_otel.log.postgres import PostgresHome
    except ImportError as error:
        raise SettingsError(
            "a store in PostgreSQL needs psycopg: install it (pip install 'tapps_otel[postgres]')"
        ) from error
    return PostgresHome(config.store, config.store_wait)


def blobs_named_in(line: bytes) -> list[str]:
    """Return the names of large values that a line may have."""
    return [name.decode() for name in _BLOB.findall(line)] if b'_blob":"' in line else []
