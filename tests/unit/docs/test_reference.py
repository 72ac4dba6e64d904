"""The reference says what is: its tables are those of the code, its promises name their tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import typer

from documents import README, REFERENCE, ROOT, Page, code, pages, reference
from reference import PARTS, renewed
from tapps_otel.cli.app import app
from tapps_otel.log.event import EVENT_TYPES
from tapps_otel.names import ATTR
from tapps_otel.otel.mapping.aliases import ALIAS
from tapps_otel.settings_types import Alias

TOPICS = [Page(path) for path in sorted(REFERENCE.glob("*.md"))]
README_LIMIT = 12_000  # bytes


def names(of: type) -> set[str]:
    """The values of a class of constants."""
    return {value for name, value in vars(of).items() if not name.startswith("_")}


# -- generated parts


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_generated_parts_are_those_of_the_code(page: Page) -> None:
    assert page.text == renewed(page.text), "run `python -m tests.reference`"


def test_every_generated_part_is_in_a_page() -> None:
    used = re.findall(r"<!-- generated: (\w+)", "".join(page.text for page in pages()))

    assert set(used) == set(PARTS)


def test_every_command_and_option_has_a_help_text() -> None:
    group = typer.main.get_command(app)
    silent = [
        f"{name} {parameter.name}"
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        if parameter.name != "help" and not parameter.help
    ]

    assert not silent


@pytest.mark.parametrize("part", ["backoff", "executor_spec", "settings", "step", "workflow"])
def test_every_option_has_a_meaning(part: str) -> None:
    silent = [line for line in PARTS[part]().splitlines() if line.endswith("|  |")]

    assert not silent


# -- tables written by hand


def test_event_types_are_those_of_the_format() -> None:
    shown = [code(name)[0] for name, _ in reference("log-format").table("event type")]

    assert sorted(shown) == sorted(EVENT_TYPES)


def test_attributes_are_those_of_the_spans() -> None:
    rows = reference("spans").table("attribute")

    assert {name.removesuffix(".*") for cell, *_ in rows for name in code(cell)} == names(ATTR)


def test_aliases_are_those_that_are_made() -> None:
    rows = reference("spans").table("alias")

    assert {name for cell, *_ in rows for name in code(cell)} == names(ALIAS)
    assert {version for _, cell, _ in rows for version in code(cell)} == set(get_args(Alias))


# -- promises


@cache
def functions_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(
    "test",
    [test for row in reference("guarantees").table("promise") for test in code(row[1])],
)
def test_every_promise_names_a_test_that_is_there(test: str) -> None:
    path, _, name = test.partition("::")

    assert name in functions_of(ROOT / path)


def test_every_test_file_that_a_page_names_is_there() -> None:
    for page in pages():
        for path in re.findall(r"\btests/[\w/]+\.py", page.text):
            assert (ROOT / path).is_file(), f"{page.name}: {path}"


# -- the pages


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= README_LIMIT


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_readme_has_one_line_to_set_up_for_each_purpose(name: str) -> None:
    (line,) = re.findall(
        rf"^<!-- {name} -->\n```sh\n([^\n]*)\n```$", README.read_text("utf-8"), re.MULTILINE
    )

    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_the_readme_links_to_every_page() -> None:
    linked = re.findall(r"\]\(tapps_otel/docs/([\w-]+)\.md\)", README.read_text("utf-8"))

    assert set(linked) == {page.path.stem for page in TOPICS}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Page) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.text):
        assert (page.path.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", TOPICS, ids=lambda page: page.path.stem)
def test_a_page_begins_with_its_title_and_one_sentence_about_it(page: Page) -> None:
    title, about, _ = page.text.split("\n\n", 2)

    assert title.startswith("# ")
    assert about.endswith(".")
    assert len(about) <= 88  # one line in the list of pages
    assert "\n" not in about


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_mentions_no_machine(page: Page) -> None:
    assert not re.search(r"/(root|work|usr)/|pypi\.org|127\.0\.0\.1", page.text)
    assert all(line.isprintable() for line in page.text.split("\n"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_pages_that_a_page_names_are_there(page: Page) -> None:
    topics = {topic.path.stem for topic in TOPICS}
    named = re.findall(r"(?:[Ss]ee|under|in|described under) `([a-z-]+)`[.;,)]", page.text)

    assert {name for name in named if name in topics or "-" in name} <= topics
