"""``tapps-otel docs``: the reference in the terminal."""

from __future__ import annotations

import pytest

from commands import Cli, on_terminal
from documents import REFERENCE

TOPICS = sorted(path.stem for path in REFERENCE.glob("*.md"))


def test_the_pages_are_listed_with_what_they_are_about(cli: Cli) -> None:
    done = cli("docs")

    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == TOPICS
    assert "What a resumed run takes from its log" in done.out


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_its_markdown_where_the_output_is_no_terminal(cli: Cli, topic: str) -> None:
    done = cli("docs", topic)

    assert done.code == 0
    assert done.out.startswith("# ")
    assert "<!--" not in done.out


def test_a_page_is_rendered_on_a_terminal() -> None:
    shown = on_terminal("docs", "metrics", columns=100)

    assert "Metrics" in shown
    assert "# Metrics" not in shown
    assert "tapps.run.duration" in shown
    assert "<!--" not in shown


def test_an_unknown_page_names_those_that_there_are(cli: Cli) -> None:
    done = cli("docs", "setings")

    assert (done.code, done.out) == (2, "")
    assert "there is no page 'setings'; did you mean 'settings'?" in done.err
    assert all(topic in done.err for topic in TOPICS)
