"""The first screen of each view of the demo's run answers, from its log alone, what happened."""

from __future__ import annotations

import os
import re
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browsers import Look
from commands import LOGS, child
from effort import sample
from tapps_otel import timeline
from tapps_otel.past.timeline import Timeline
from tapps_otel.report.lines import clock_time, took
from terminals import displayed

pytestmark = pytest.mark.xdist_group("first screens")  # one worker runs the demo for all of them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo was run."""
    made = tmp_path_factory.mktemp("demo")
    here = Path.cwd()
    os.chdir(made)
    try:
        assert child("demo").code == 0
    finally:
        os.chdir(here)
    return made


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Timeline:
    """The demo's run; its folder is the working directory."""
    monkeypatch.chdir(folder)
    (log,) = LOGS.glob("*.jsonl")
    return timeline(log.stem)


def answers(run: Timeline) -> list[str]:
    """What must be said, as regular expressions: of texts whose blanks and breaks are one space."""
    (killed, attempt), *_ = run.interrupted
    (down,) = run.downtimes
    kept = run.not_run_again
    return [
        rf"status completed at [\d :-]+ UTC, after {len(run.executions)} executions",
        rf"killed {killed.step_id} after at least {took(attempt.duration_ns)}",
        rf"execution 1 at {clock_time(run.executions[0].end_ns)}, process \d+ ",
        rf"down ([\d :-]+ )?{took(down.duration_ns)} ",
        rf"kept {len(kept)} steps not run again: {kept[0].step_id}, ",
        rf"costs {run.costs[0].name} {took(run.costs[0].critical_ns)} \(\d+%\)",
    ]


def missing(run: Timeline, text: str) -> list[str]:
    """What a text does not answer."""
    words = " ".join(text.split())
    return [one for one in answers(run) if not re.search(one, words)]


@pytest.mark.parametrize(
    ("view", "size"), sample(product(["show", "timeline"], [(80, 24), (60, 30), (200, 20)]), 2)
)
def test_the_first_screen_of_a_terminal(run: Timeline, view: str, size: tuple[int, int]) -> None:
    columns, rows = size
    screen = displayed(view, run.workflow_id, columns=columns)[:rows]

    assert missing(run, "\n".join(screen)) == []


@pytest.mark.parametrize("width", [400, 1280])
def test_the_first_screen_of_the_page(run: Timeline, browser: Browser, width: int) -> None:
    assert child("timeline", run.workflow_id, "--html", f"{width}.html").code == 0
    look = Look(browser, viewport={"width": width, "height": 800})
    page = look.open(Path(f"{width}.html"))
    facts = page.locator("#facts")

    assert missing(run, facts.inner_text()) == []
    box = facts.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 800
    assert look.noises == []
    page.close()
