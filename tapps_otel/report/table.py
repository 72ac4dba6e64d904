"""Tables that fit a terminal: what matters less is left out, what may be long is cut. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tapps_otel.report.lines import Line, Piece, columns, cut
from tapps_otel.report.text import width

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Column", "table"]

_GAP = 2


class Column(NamedTuple):
    """How a column gives way where there is no room for all.

    :ivar title: empty in all columns: the table has no titles
    :ivar least: columns of the terminal that it needs at least; 0: it is never cut
    :ivar rank: columns with higher ranks are left out first; 0: never
    """

    title: str = ""
    least: int = 0
    rank: int = 0


Cell = Line | Piece
Row = list[Cell]


def table(
    layout: Sequence[Column], rows: Sequence[Row], *, wide: int | None, indent: int = 0
) -> list[Line]:
    """Align rows of cells, one for each column of the layout.

    :param wide: columns of the terminal; ``None``: nothing is cut or left out
    """
    if not rows:
        return []
    if any(column.title for column in layout):
        titles: Row = [Piece(column.title, "dim") for column in layout]
        rows = [titles, *rows]
    widths = [max(width(row[at].text) for row in rows) for at in range(len(layout))]
    kept = [at for at in range(len(layout)) if widths[at]]
    if wide is not None:
        kept = _fitting(layout, widths, kept, wide - indent)
        rows = [[cut(_line(cell), widths[at]) for at, cell in enumerate(row)] for row in rows]
    return columns(([row[at] for at in kept] for row in rows), indent=indent, gap=_GAP)


def _fitting(layout: Sequence[Column], widths: list[int], kept: list[int], wide: int) -> list[int]:
    """Return the columns to show, and reduce the widths of those that are cut."""
    while True:
        least = [min(widths[at], layout[at].least or widths[at]) for at in kept]
        missing = sum(least) + _GAP * (len(kept) - 1) - wide
        ranked = [at for at in kept if layout[at].rank]
        if missing <= 0 or not ranked:
            break
        kept.remove(max(ranked, key=lambda at: layout[at].rank))
    too_wide = sum(widths[at] for at in kept) + _GAP * (len(kept) - 1) - wide
    for at in reversed(kept):
        if too_wide > 0 and layout[at].least:
            taken = min(too_wide, widths[at] - min(widths[at], layout[at].least))
            widths[at] -= taken
            too_wide -= taken
    return kept


def _line(cell: Cell) -> Line:
    return cell if isinstance(cell, Line) else Line((cell,))
