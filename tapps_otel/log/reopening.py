"""Opens a log again that has failed, and writes what it lacks."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tapps_otel import clock
from tapps_otel.errors import LeaseLostError, LogError, LogWriteError

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.backlog import Backlog
    from tapps_otel.log.event import Event
    from tapps_otel.log.open_log import OpenLog
    from tapps_otel.log.reports import Reports

__all__ = ["Reopening"]

_RETRY_NS: Final = 1_000_000_000  # between two attempts


class Reopening:
    """Recovers a log from failures. Its caller holds the lock of the log.

    :param stop: refuse to continue a log to which another process wrote
    """

    def __init__(
        self, path: Path, log: OpenLog, backlog: Backlog, reports: Reports, *, stop: bool
    ) -> None:
        self._path, self._log, self._backlog = path, log, backlog
        self._reports, self._stop = reports, stop
        self._retry_at_ns = 0

    @property
    def waits(self) -> bool:
        """Whether the next attempt is not made yet."""
        return clock.monotonic_ns() < self._retry_at_ns

    def wait(self) -> None:
        """Let the next attempt wait."""
        self._retry_at_ns = clock.monotonic_ns() + _RETRY_NS

    def need_not_wait(self) -> None:
        """Let the next attempt be made at once."""
        self._retry_at_ns = 0

    def allows(self, event: Event) -> bool:
        """Try to recover a log that is not ready; return whether the event can be in it.

        :raises LeaseLostError: another process has taken the run over
        :raises LogWriteError: the log is closed
        """
        log, self._backlog.execution = self._log, event.execution
        log.fail_if_unhandled()
        log.raise_if_taken()
        if log.failure is None:
            if event.seq:  # another thread was faster, and has closed the log since
                return True
            raise LogWriteError(self._path, "the log is closed")
        return self.recover()

    def recover(self) -> bool:
        """Open the log again and write what is missing in it; return whether that succeeded."""
        if self.waits:
            return False
        self.wait()
        log, backlog = self._log, self._backlog
        try:
            backlog.put_back(log.reopen(backlog.execution, accept_foreign=not self._stop))
            backlog.write()
            log.work_again(backlog.execution)
        except LeaseLostError:
            raise
        except (OSError, LogError) as error:
            log.fail(error)
            log.raise_if_taken()
            return False
        except BaseException:  # an interrupt
            self.need_not_wait()
            raise
        self.need_not_wait()
        return True

    def recover_last(self) -> bool:
        """Write what waits; where another file has the log's name, to a new file beside it."""
        log = self._log
        with suppress(LeaseLostError):
            if log.taken_by is None and self.recover():
                return True
        if not log.has_lost_name():
            return False
        name = log.move_beside()
        self.need_not_wait()
        saved = self.recover()
        if saved:
            self._reports.error("another file has this name: the log was saved as %s", name)
        return saved
