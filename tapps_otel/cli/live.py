"""A run in progress on a terminal: a view that is drawn anew; elsewhere a few lines that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from tapps_otel import clock
from tapps_otel.cli.terminal import Terminal, out, styled
from tapps_otel.report.lines import Line, Piece
from tapps_otel.report.live import Sparing, counts, execution_text, view
from tapps_otel.report.progress import Progress
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from tapps_otel.log.event import Event

__all__ = ["LiveView"]

_LEAST: Final = 50_000_000  # ns between two drawings


class LiveView:
    """Shows the events of a run that it is given. As a context manager it ends the view.

    :param quiet: show nothing; the events are counted all the same
    :ivar stopped: why nothing executes the run at present, if nothing does
    """

    def __init__(self, terminal: Terminal, workflow_id: str, *, quiet: bool = False) -> None:
        self.progress = Progress()
        self.stopped: str | None = None
        self._terminal, self._workflow_id, self._quiet = terminal, workflow_id, quiet
        self._sparing = Sparing()
        self._live: Live | None = None
        self._drawn: list[Line] = []
        self._free_ns = 0  # no drawing before

    def take(self, event: Event, *, is_new: bool = True) -> None:
        """Process the next event.

        :param is_new: whether its line may stay: not what was written before
        """
        line = self.progress.feed(event)
        if line is None or self._quiet:
            return
        if is_new:
            self.say(line)
        else:
            self._sparing.recent.append(line)

    def say(self, line: Line) -> None:
        """Show a line that stays, unless there were many before."""
        if self._quiet:
            return
        if self._sparing.keeps(line):
            self._terminal.say(line)
        elif not self._terminal.is_terminal and self._sparing.is_milestone:
            self._terminal.say(Line([*counts(self.progress), Piece(" so far")]))

    def say_standing(self) -> None:
        """Print the run's state if the output is not a terminal."""
        if not self._terminal.is_terminal and not self._quiet:
            about = (plain(self._workflow_id), "strong"), f"  {execution_text(self.progress)}"
            self._terminal.say(Line.of(*about), counts(self.progress))

    def restart(self) -> None:
        """Begin anew, with another log."""
        self.progress = Progress()
        self.stopped = None
        self._sparing.recent.clear()

    def draw(self) -> None:
        """Draw the view anew if it has changed, and was not drawn a moment ago."""
        now_ns = clock.monotonic_ns()
        if self._live is None or now_ns < self._free_ns:
            return
        self._free_ns = now_ns + _LEAST
        size = self._terminal.console.size
        lines = view(
            self._workflow_id,
            self.progress,
            self._sparing.recent,
            now_ns=clock.time_ns(),
            size=(size.width - 1, size.height - 1),
            stopped=self.stopped,
        )
        if lines != self._drawn:
            self._drawn = lines
            self._live.update(_joined(lines), refresh=True)

    def __enter__(self) -> Self:
        if not self._quiet and self._terminal.is_terminal:
            from rich.live import Live

            # What the workflow prints to the same terminal is shown above the view.
            self._live = Live(
                console=self._terminal.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=out().is_terminal,
            )
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._sparing.hidden:
            more = f"  … and {counted(self._sparing.hidden, 'more line')}: show has every step"
            self._terminal.say(Line.of((more, "dim")))


def _joined(lines: list[Line]) -> Text:
    from rich.text import Text

    return Text("\n", no_wrap=True, end="").join(map(styled, lines))
