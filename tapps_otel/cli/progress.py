"""The progress of a run in this process, read from its log as it is written."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from tapps_otel import clock
from tapps_otel.cli.terminal import err, out, styled
from tapps_otel.report.lines import Line, took
from tapps_otel.report.progress import Progress
from tapps_otel.report.text import counted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from tapps_otel.log.event import Event

__all__ = ["Watch"]

_POLL: Final = 0.05  # seconds
_MOST_LINES: Final = 20  # of steps in one second; further ones are only counted


class Watch:
    """Shows what is written to a log after ``seen``, until the block is left.

    It follows the file in a thread, takes no lock and never disturbs the run. On a terminal, the
    last line shows the steps in progress.

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
        self.progress = Progress()
        self.began = False
        self._path, self._workflow_id, self._file = path, workflow_id, file
        self._seen, self._quiet = seen, quiet
        self._terminal = err()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tapps-otel-watch", daemon=True)
        self._live: Live | None = None
        self._started_ns = clock.monotonic_ns()
        self._second, self._lines, self._hidden = 0, 0, 0

    def __enter__(self) -> Self:
        if not self._quiet and self._terminal.is_terminal:
            self._live = self._make_live()
            self._live.start()
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
        if self._live is not None:
            self._live.stop()

    @property
    def elapsed(self) -> str:
        """Time since the watch began."""
        return took(clock.monotonic_ns() - self._started_ns)

    def _make_live(self) -> Live:
        from rich.live import Live

        # What the workflow prints to the same terminal is shown above the line.
        return Live(
            get_renderable=self._now,
            console=self._terminal.console,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=out().is_terminal,
        )

    def _now(self) -> Text:
        width = self._terminal.width or 80
        text = styled(Line.of(("… ", "strong"), self.progress.now, (f"  {self.elapsed}", "dim")))
        text.truncate(width - 1, overflow="ellipsis")
        return text

    # -- in the thread

    def _follow(self) -> None:
        from tapps_otel.errors import LogError

        with contextlib.suppress(LogError, OSError):  # the run itself reports what is wrong
            for event in self._events():
                self._take(event)
        self._flush_hidden()

    def _events(self) -> Iterator[Event]:
        """Yield the log's events, once there is a log."""
        from tapps_otel.log.reader import follow

        stopping = False
        while True:
            try:
                yield from follow(
                    self._path,
                    self._workflow_id,
                    done=self._stop.is_set,
                    poll=_POLL,
                    file=self._file,
                )
            except FileNotFoundError:
                if stopping:  # this was the last look, after the end of the run
                    return
                stopping = self._stop.wait(_POLL)
            else:
                return

    def _take(self, event: Event) -> None:
        line = self.progress.feed(event)
        if event.seq <= self._seen:
            return
        self.began = True
        if line is not None and not self._quiet:
            self._say(line)

    def _say(self, line: Line) -> None:
        second = clock.monotonic_ns() // 1_000_000_000
        if second != self._second:
            self._flush_hidden()
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > _MOST_LINES and self._terminal.is_terminal:
            self._hidden += 1
            return
        with contextlib.suppress(OSError, ValueError):  # a closed terminal does not end the run
            self._terminal.say(line)

    def _flush_hidden(self) -> None:
        hidden, self._hidden = self._hidden, 0
        if hidden and not self._quiet:
            with contextlib.suppress(OSError, ValueError):
                self._terminal.say(Line.of((f"  … and {counted(hidden, 'more step')}", "dim")))
