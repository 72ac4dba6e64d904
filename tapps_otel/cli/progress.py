"""The progress of a run in this process, read from its log as it is written."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from tapps_otel import clock
from tapps_otel.cli.live import LiveView
from tapps_otel.cli.terminal import err
from tapps_otel.report.lines import took

if TYPE_CHECKING:
    from tapps_otel.log.follower import Follower

__all__ = ["Watch"]

_POLL: Final = 0.1  # seconds


class Watch:
    """Shows what is written to a log after ``seen``, until the block is left.

    It follows the file in a thread, takes no lock and never disturbs the run.

    :param seen: seq of the last event that is not new
    :param file: the log, if it is open already
    :ivar began: whether there was a new event
    """

    def __init__(
        self,
        path: Path,
        workflow_id: str,
        *,
        seen: int,
        quiet: bool,
        file: BinaryIO | None = None,
    ) -> None:
        self.began = False
        self._path, self._workflow_id, self._file, self._seen = path, workflow_id, file, seen
        self._view = LiveView(err(), workflow_id, quiet=quiet)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tapps-otel-watch", daemon=True)
        self._started_ns = clock.monotonic_ns()

    def __enter__(self) -> Self:
        self._view.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._view.__exit__(kind, error, trace)

    @property
    def elapsed(self) -> str:
        """Time since the watch began."""
        return took(clock.monotonic_ns() - self._started_ns)

    @property
    def finished(self) -> int:
        """Number of steps that ended well, in all executions."""
        return self._view.progress.finished

    # -- in the thread

    def _follow(self) -> None:
        from tapps_otel.errors import LogError

        with contextlib.suppress(LogError, OSError):  # the run itself reports what is wrong
            follower = self._open()
            if follower is not None:
                with follower:
                    self._show(follower)

    def _open(self) -> Follower | None:
        """Open the log once there is one; ``None`` if the run ended without."""
        from tapps_otel.log.follower import Follower

        while True:
            is_over = self._stop.is_set()
            try:
                return Follower(self._path, self._workflow_id, file=self._file)
            except FileNotFoundError:
                if is_over:
                    return None
            self._stop.wait(_POLL)

    def _show(self, follower: Follower) -> None:
        while True:
            is_over = self._stop.is_set()  # what is read after this is all there will be
            self._read(follower)
            if follower.at_end:
                if is_over:
                    return
                self._stop.wait(_POLL)

    def _read(self, follower: Follower) -> None:
        for event, _ in follower.read():
            is_new = event.seq > self._seen
            self.began = self.began or is_new
            # A closed terminal does not end the run.
            with contextlib.suppress(OSError, ValueError):
                self._view.take(event, is_new=is_new)
        with contextlib.suppress(OSError, ValueError):
            self._view.draw()
