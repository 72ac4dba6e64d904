"""The picture of a terminal: text in one SVG file that needs nothing from elsewhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tapps_otel.cli.picture import svg
from tapps_otel.report.lines import Line

LINES = [Line.of(("✓ ", "good"), "one <&> two"), Line(), Line.of(("✗ three", "bad"))]
NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    """Return the lines of text in a picture, its title first."""
    rows: dict[str, str] = {}
    for one in ET.fromstring(picture).iter(f"{NAMESPACE}text"):
        y = one.attrib["y"]
        rows[y] = rows.get(y, "") + (one.text or "").replace("\xa0", " ")
    return [row.strip("\n") for row in rows.values() if row != "\n"]


def test_it_has_the_lines_as_text() -> None:
    assert texts(svg(LINES, "A <title>")) == ["A <title>", "✓ one <&> two", "✗ three"]


def test_it_needs_nothing_from_elsewhere() -> None:
    picture = svg(LINES, "title")

    assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]
    assert "@font-face" not in picture
    assert "monospace" in picture


def test_it_is_the_same_whatever_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = svg(LINES, "title")
    for name, value in {"NO_COLOR": "1", "COLUMNS": "20", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    assert svg(LINES, "title") == picture


def test_statuses_differ_in_colour() -> None:
    classes = re.findall(r'class="terminal-(r\d)"[^>]*>[✓✗]', svg(LINES, "title"))

    assert len(set(classes)) == 2
