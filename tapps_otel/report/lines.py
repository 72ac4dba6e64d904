"""Lines of a report: pieces of safe text, each with a style for its meaning. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.clock import timestamp
from tapps_otel.report.text import shorten, width, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "MARKS",
    "Fact",
    "Line",
    "Piece",
    "age",
    "clock_time",
    "columns",
    "cut",
    "day_time",
    "fact_lines",
    "labelled",
    "took",
]

# The sign of each status, and its style.
MARKS: Final[dict[str, tuple[str, str]]] = {
    "completed": ("✓", "good"),
    "skipped": ("-", "dim"),
    "failed": ("✗", "bad"),
    "timeout": ("✗", "bad"),
    "cancelled": ("✗", "warn"),
    "interrupted": ("!", "warn"),
    "paused": ("?", "warn"),
    "answered": ("?", "good"),
    "running": ("…", "strong"),
    "damaged": ("✗", "bad"),
}

_LABEL: Final = 10  # columns of a label
_MOST_ROWS: Final = 4  # of one fact, on a terminal
_MOST_COLUMNS: Final = 2000  # of one fact, elsewhere

Fact = tuple[str, str, str]  # a label, a text that is safe to show, a style


class Piece(NamedTuple):
    """Text of one style; the text is safe to show."""

    text: str
    style: str = ""


class Line(tuple[Piece, ...]):
    """One line of a report."""

    __slots__ = ()

    @classmethod
    def of(cls, *pieces: str | tuple[str, str]) -> Line:
        """Make a line of texts, each alone or with a style."""
        return cls(Piece(one) if isinstance(one, str) else Piece(*one) for one in pieces)

    @property
    def text(self) -> str:
        """The line without its styles."""
        return "".join(piece.text for piece in self)


def labelled(label: str, text: str, style: str = "") -> Line:
    """Make a line of a label and a text, as reports begin and end with."""
    return Line.of((f"{label:<{_LABEL}}", "dim"), (text, style))


def fact_lines(facts: Iterable[Fact], *, wide: int | None, whole: bool = False) -> list[Line]:
    """Put each label before its text, which is wrapped to the terminal, and cut.

    :param wide: columns of the terminal, if it is one
    :param whole: do not cut
    """
    room = None if wide is None else max(12, wide - _LABEL)
    most = _MOST_COLUMNS if room is None else _MOST_ROWS * room
    lines = []
    for label, text, style in facts:
        shown = text if whole else shorten(text, most)
        for at, line in enumerate([shown] if room is None else wrap(shown, room)):
            lines.append(labelled("" if at else label, line, style))
    return lines


def columns(rows: Iterable[Sequence[Line | Piece]], *, indent: int = 0, gap: int = 2) -> list[Line]:
    """Align rows of cells; the last cell of a row has no width."""
    table = [[cell if isinstance(cell, Line) else Line((cell,)) for cell in row] for row in rows]
    for row in table:
        while row and not row[-1].text:
            row.pop()
    count = max((len(row) for row in table), default=0)
    widths = [
        max((width(row[at].text) for row in table if at < len(row) - 1), default=0)
        for at in range(count)
    ]
    lines = []
    for row in table:
        pieces = [Piece(" " * indent)] if indent else []
        for at, cell in enumerate(row):
            pieces += cell
            if at < len(row) - 1:
                pieces.append(Piece(" " * (widths[at] - width(cell.text) + gap)))
        lines.append(Line(pieces))
    return lines


def cut(line: Line, columns: int) -> Line:
    """Cut a line to this many columns; a cut line ends with an ellipsis."""
    left = columns
    if width(line.text) <= left:
        return line
    pieces = []
    for piece in line:
        if width(piece.text) >= left:
            pieces.append(Piece(shorten(f"{piece.text} ", left), piece.style))
            break
        pieces.append(piece)
        left -= width(piece.text)
    return Line(pieces)


def took(duration_ns: int | None) -> str:
    """Format a duration for people."""
    if duration_ns is None:
        return ""
    seconds = duration_ns / 1e9
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def age(ns: int) -> str:
    """Format how long ago something was, in one unit; the future is now."""
    seconds = max(0, ns) // 10**9
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def day_time(ns: int | None) -> str:
    """Format day and time, UTC, to the second; ``?`` for a time that is not known."""
    return timestamp(ns)[:19].replace("T", " ") if ns is not None and ns > 0 else "?"


def clock_time(ns: int | None) -> str:
    """Format the time of day, UTC, to the millisecond; ``?`` for one that is not known."""
    return timestamp(ns)[11:23] if ns is not None and ns > 0 else "?"
