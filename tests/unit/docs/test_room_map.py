"""The room map leads to what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from documents import ROOM_MAP, Page, code

PACKAGE = ROOM_MAP.parent
MAP = Page(ROOM_MAP)
QUESTIONS = MAP.table("question")


def has(path: Path, name: str) -> bool:
    """Whether a module defines this function, class or method, as ``Class.method``."""
    body = ast.parse(path.read_text("utf-8")).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and node.name == part
        ]
        if not found:
            return False
        body = found[0].body
    return True


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_every_answer_names_what_is_there(question: str, answer: str) -> None:
    places = [place for place in code(answer) if "::" in place]

    assert places, question
    for place in places:
        path, _, name = place.partition("::")
        assert has(PACKAGE / path, name), place


def test_there_are_ten_questions_at_least() -> None:
    assert len(QUESTIONS) >= 10


def test_every_module_that_it_names_is_there() -> None:
    before_the_rooms = MAP.text.partition("## The rooms")[0]

    for path in re.findall(r"`(\w+/[\w/]+\.py)`", before_the_rooms):
        assert (PACKAGE / path).is_file() or (PACKAGE.parent / path).is_file(), path


def test_every_room_is_described() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"."}

    assert set(re.findall(r"<!-- generated: room (\S+) -->", MAP.text)) == rooms
