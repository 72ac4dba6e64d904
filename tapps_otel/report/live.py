"""The view of a run in progress, as lines that are drawn anew, and which lines stay. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from tapps_otel.report.lines import Line, Piece, columns, cut, took
from tapps_otel.report.text import counted, plain, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.report.progress import OpenStep, Progress

__all__ = ["Sparing", "counts", "execution_text", "view"]

_GOOD, _OTHER = 30, 60  # lines that stay: of steps that ended well, and of anything else
_RECENT: Final = 5  # lines of those that do not stay, which the view shows
_LEAST: Final = 3  # rows for steps in progress
_MOST: Final = 12  # rows for steps in progress: what was said before is to be seen, too
_NOTES: Final = 30  # columns beside a step's name


class Sparing:
    """Chooses which lines stay: two thousand steps are not two thousand lines.

    The first ones stay, and of the later ones a limited number of those that did not go well.

    :ivar hidden: number of lines that did not stay
    :ivar recent: the last lines, if they did not stay
    """

    def __init__(self) -> None:
        self._left = {True: _GOOD, False: _OTHER}
        self.hidden = 0
        self.recent: deque[Line] = deque(maxlen=_RECENT)

    def keeps(self, line: Line) -> bool:
        """Return whether a line stays; otherwise hide it."""
        went_well = line[0].style in {"good", "dim"}
        if self._left[went_well]:
            self._left[went_well] -= 1
            self.recent.clear()  # older than this line
            return True
        self.hidden += 1
        self.recent.append(line)
        return False

    @property
    def is_milestone(self) -> bool:
        """Whether to tell, where nothing is drawn anew, how many lines there would have been.

        After 100, 200, 500, 1 000, ...: the more there are, the more rarely.
        """
        digits = str(self.hidden)
        return len(digits) > 2 and digits[0] in "125" and not digits[1:].strip("0")


def view(
    workflow_id: str,
    progress: Progress,
    recent: Iterable[Line],
    *,
    now_ns: int,
    size: tuple[int, int],
    stopped: str | None = None,
) -> list[Line]:
    """Draw the run as it stands: its execution, counts, steps in progress, and recent lines.

    :param now_ns: the present, by the wall clock
    :param size: columns and rows, of which no more are used
    :param stopped: why nothing executes it at present
    """
    wide, rows = size
    lines = [_head(workflow_id, progress, now_ns, stopped), counts(progress)]
    shown = [Line([Piece("  "), *line]) for line in recent]
    del shown[: max(0, len(shown) - max(0, rows - len(lines) - _LEAST))]
    room = wide, rows - len(lines) - len(shown)
    lines += _open_lines(progress, now_ns, room, is_stopped=stopped is not None)
    return [cut(line, wide) for line in [*lines, *shown]]


def _head(workflow_id: str, progress: Progress, now_ns: int, stopped: str | None) -> Line:
    if stopped is not None:
        return Line.of(("! ", "warn"), (plain(workflow_id), "strong"), (f"  {stopped}", "warn"))
    since = _elapsed(progress.began_ns, now_ns) if progress.execution else "0 s"
    return Line.of(
        ("… ", "strong"),
        (plain(workflow_id), "strong"),
        f"  {since}",
        (f"  {execution_text(progress)}", "dim"),
    )


def execution_text(progress: Progress) -> str:
    """Name the workflow, the execution and its process."""
    if not progress.execution:
        return "not begun"
    parts = [plain(progress.name)] if progress.name else []
    parts.append(f"execution {progress.execution}")
    pid, host = progress.process.get("pid"), progress.process.get("host")
    if pid is not None:
        parts.append(plain(f"process {pid} on {host}"))
    return ", ".join(parts)


def counts(progress: Progress) -> Line:
    """Count the steps: finished, failed, in progress, waiting."""
    pieces = [Piece(f"  {counted(progress.finished, 'step')} finished")]
    if progress.failed:
        pieces.append(Piece(f", {progress.failed} failed", "bad"))
    if progress.open:
        pieces.append(Piece(f", {len(progress.running)} running"))
    if progress.waiting:
        pieces.append(Piece(f", {len(progress.waiting)} waiting for a retry", "warn"))
    return Line(pieces)


def _open_lines(
    progress: Progress, now_ns: int, size: tuple[int, int], *, is_stopped: bool
) -> list[Line]:
    """List the steps in progress, as many as there are rows for; those that began first."""
    wide, rows = size
    running, waiting = progress.running, [*progress.waiting.values()]
    count = len(running) + len(waiting)
    rows = min(rows, _MOST)
    room = rows if count <= rows else max(1, rows - 1)
    longest = max(12, wide - _NOTES)
    table: list[list[Line | Piece]] = [
        [
            Line.of(("… ", "strong"), shorten(plain(one.step_id), longest)),
            Piece("cut off" if is_stopped else _elapsed(one.since_ns, now_ns)),
            Piece(_note(one), "dim"),
        ]
        for one in running[:room]
    ]
    table += [
        [
            Line.of(("· ", "warn"), shorten(plain(one.step_id), longest)),
            Piece(
                "cut off" if is_stopped else f"retry in {_elapsed(now_ns, one.until_ns)}", "warn"
            ),
        ]
        for one in waiting[: room - len(table)]
    ]
    more = count - len(table)
    return columns(table, indent=2) + ([Line.of((f"  and {more} more", "dim"))] if more else [])


def _note(one: OpenStep) -> str:
    notes = [plain(one.agent)] if one.agent else []
    return ", ".join([*notes, *([f"attempt {one.attempt}"] if one.attempt > 1 else [])])


def _elapsed(start_ns: int, end_ns: int) -> str:
    """Format a time that passes: its last digit changes at most ten times a second."""
    ns = max(0, end_ns - start_ns)
    if ns < 10 * 10**9:
        return f"{ns / 1e9:.1f} s"
    return f"{ns // 10**9} s" if ns < 60 * 10**9 else took(ns)
