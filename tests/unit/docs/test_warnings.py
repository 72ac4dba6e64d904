"""Every message that the library logs is in the documentation, with what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tapps_otel

PACKAGE = Path(tapps_otel.__file__).parent
PAGE = " ".join((PACKAGE / "docs" / "warnings.md").read_text("utf-8").split())
# What makes a message of a text that it is given: which argument that is.
LOGGERS = {
    "warning": 0,
    "error": 0,
    "log": 1,
    "warn_once": 0,
    "_warn_once": 1,
    "_report": 2,
    "report": 1,
}
SHORTEST = 10  # letters of a part between two placeholders that must be on the page


def messages() -> Iterator[tuple[str, str]]:
    """Yield each place in the source, and the message that is logged there."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (text := logged(node)) is not None:
                yield f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}", text


def logged(call: ast.Call) -> str | None:
    """Return the text that a call logs, with ``%s`` for what is put into it."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    place = LOGGERS.get(name)
    if place is None or len(call.args) <= place:
        return None
    owner = getattr(getattr(function, "value", None), "id", "_log")
    if name == "warn_once" and len(call.args) > 1:  # a kind of failure of OpenTelemetry
        return None
    if name in {"warning", "error", "log"} and owner != "_log":
        return None
    text = call.args[place]
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return text.value
    if isinstance(text, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "%s" for part in text.values
        )
    return None


def parts(text: str) -> list[str]:
    """Return the parts of a message that are always the same, if they tell it from others."""
    found = [" ".join(part.split()).strip(" :,;.") for part in re.split(r"%[a-z]", text)]
    return [part for part in found if len(part) >= SHORTEST]


def test_each_is_documented() -> None:
    logged_parts = [(place, part) for place, text in messages() for part in parts(text)]
    undocumented = [(place, part) for place, part in logged_parts if part not in PAGE]

    assert logged_parts
    assert undocumented == [], "docs/warnings.md has no row for these"


def test_every_row_says_what_to_do() -> None:
    rows = (PACKAGE / "docs" / "warnings.md").read_text("utf-8").splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("| ")]

    assert all(len(cell) == 2 and len(cell[1]) > 10 for cell in cells)
