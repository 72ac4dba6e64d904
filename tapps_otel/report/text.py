"""Untrusted text made safe to show: all text of a log passes here on its way to a reader. Pure.

A step's name, a result or an exception's message may hold anything: escape sequences that clear the
screen or set its title, marks that turn the direction of writing, halves of characters. What
``str.isprintable`` does not accept is escaped, as by ``repr``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "block",
    "counted",
    "excerpt",
    "few",
    "json_text",
    "markdown",
    "plain",
    "shorten",
    "width",
    "wrap",
]

_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_WIDE: Final = frozenset("WF")
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>|&~#!$])")


def plain(text: object) -> str:
    """Return ``text`` on one line, with every character escaped that is not printable."""
    shown = text if isinstance(text, str) else str(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else _escape(char) for char in shown)


def block(text: str) -> list[str]:
    """Return the lines of ``text``, split only at newlines, each made safe; tabs become spaces."""
    return [plain(line.expandtabs(4)) for line in text.rstrip("\n").split("\n")]


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Encode as JSON that any terminal can show: what is not printable is escaped.

    :param ascii_only: escape all but ASCII; otherwise letters of all languages stay as they are
    """
    separators = None if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
    return text if text.isprintable() else text.translate(_JSON_ESCAPES)


def width(text: str) -> int:
    """Return the columns that ``text``, made safe before, takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def shorten(text: str, columns: int) -> str:
    """Cut ``text`` to this many columns; a cut text ends with an ellipsis."""
    if width(text) <= columns:
        return text
    taken, used = [], 1
    for char in text:
        used += _columns(char)
        if used > columns:
            break
        taken.append(char)
    return "".join(taken) + "…" if columns > 0 else ""


def excerpt(text: object, columns: int) -> str:
    """Make the beginning of ``text`` safe, on one line of this many columns.

    It takes no more time than that line, however long the text is.
    """
    shown = text if isinstance(text, str) else str(text)
    return shorten(plain(shown[: columns + 1]), columns)


def wrap(text: str, columns: int) -> list[str]:
    """Break ``text``, made safe before, into lines of this many columns: at spaces if it can."""
    lines, line = [], ""
    for word in text.split(" "):
        rest = word
        if line and width(line) + 1 + width(rest) <= columns:
            line += f" {rest}"
            continue
        if line:
            lines.append(line.rstrip())
        while width(rest) > columns:
            taken = max(1, len(shorten(rest, columns + 1)) - 1)
            lines.append(rest[:taken])
            rest = rest[taken:]
        line = rest
    return [*lines, line.rstrip()]


def markdown(text: object) -> str:
    """Make ``text`` safe on one line of Markdown: also in a table, and without any markup."""
    return _MARKDOWN.sub(r"\\\1", plain(text))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 run``, ``2 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def few(texts: Iterable[str], most: int = 6, *, total: int | None = None) -> str:
    """Join the first few of ``texts`` with commas, and add how many more there are.

    :param total: number of texts if not all of them are given
    """
    given = list(texts)
    shown = ", ".join(given[:most])
    more = (len(given) if total is None else total) - min(most, len(given))
    return shown if more <= 0 else f"{shown} and {more} more"


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1


def _escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _JsonEscapes(dict[int, str]):
    """Maps characters to JSON that any terminal can show, for :meth:`str.translate`."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1]
        if len(self) < 4096:  # a cache of bounded size
            self[code] = shown
        return shown


_JSON_ESCAPES: Final = _JsonEscapes()
