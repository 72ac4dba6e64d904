"""``docs``: show the pages of the reference."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import out
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.report.lines import Piece, columns

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["docs"]

_COMMENT: Final = re.compile(r"^<!-- .* -->\n", re.MULTILINE)  # marks for the tests


def docs(topic: str | None) -> Code:
    """Show a page, or the list of pages."""
    pages = _pages()
    if topic is None:
        out().say(*columns((Piece(name, "strong"), Piece(_about(pages[name]))) for name in pages))
    elif topic in pages:
        _show(_text(pages[topic]))
    else:
        close = get_close_matches(topic, pages, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        refuse_usage(f"there is no page {topic!r}{meant}\nthe pages are {', '.join(pages)}")
    return Code.OK


def _pages() -> dict[str, Traversable]:
    """The pages by name; they are in the wheel."""
    found = (files("tapps_otel") / "docs").iterdir()
    by_name = {page.name.removesuffix(".md"): page for page in found if page.name.endswith(".md")}
    return dict(sorted(by_name.items()))


def _text(page: Traversable) -> str:
    return _COMMENT.sub("", page.read_text("utf-8"))


def _about(page: Traversable) -> str:
    """The first paragraph under the title."""
    return _text(page).split("\n\n", 2)[1]


def _show(text: str) -> None:
    terminal = out()
    if not terminal.is_terminal:
        terminal.say(*text.splitlines())
        return
    from rich.markdown import Markdown

    terminal.console.print(Markdown(text))
