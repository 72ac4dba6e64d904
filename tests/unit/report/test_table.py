from __future__ import annotations

import pytest

from tapps_otel.report.lines import Line, Piece
from tapps_otel.report.table import Column, table

LAYOUT = (
    Column("NAME", least=6),
    Column("STATE"),
    Column("WHEN", rank=1),
    Column("NOTE", least=4, rank=2),
)
ROWS: list[list[Line | Piece]] = [
    [Line.of("+ ", "a-long-name"), Piece("done"), Piece("yesterday"), Piece("all went well")],
    [Line.of("x ", "b"), Piece("bad"), Piece(""), Piece("")],
]


def drawn(wide: int | None) -> list[str]:
    return [line.text for line in table(LAYOUT, ROWS, wide=wide)]


def test_columns_are_aligned() -> None:
    assert drawn(None) == drawn(100) == [
        "NAME           STATE  WHEN       NOTE",
        "+ a-long-name  done   yesterday  all went well",
        "x b            bad",
    ]  # fmt: skip


def test_the_last_columns_are_cut_first() -> None:
    assert drawn(40)[1] == "+ a-long-name  done   yesterday  all we…"
    assert drawn(35)[1] == "+ a-long-n…  done   yesterday  all…"


def test_columns_of_higher_ranks_are_left_out_first() -> None:
    assert drawn(28) == [
        "NAME        STATE  WHEN",
        "+ a-long-…  done   yesterday",
        "x b         bad",
    ]
    assert drawn(13)[1] == "+ a-l…  done"


@pytest.mark.parametrize("wide", range(13, 60))
def test_it_fits(wide: int) -> None:
    assert max(map(len, drawn(wide))) <= wide


def test_empty_columns_and_tables_take_no_room() -> None:
    assert table(LAYOUT, [], wide=80) == []
    rows: list[list[Line | Piece]] = [[Piece("a"), Piece(""), Piece(""), Piece("b")]]
    assert [line.text for line in table((Column(),) * 4, rows, wide=80)] == ["a  b"]
