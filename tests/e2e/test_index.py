"""The index of several runs in a real browser, opened from the disk, and its links."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from browsers import EVIL, Look
from commands import child
from effort import sample
from logs import forge
from tapps_otel.report.page.index import index_content, index_row
from tapps_otel.report.page.render import render_index
from timelines import SECOND, TimedStory, crashed_and_resumed


def logs() -> None:
    """Logs of three runs: completed, failed, and interrupted."""
    start = {"event_type": "workflow_start", "workflow": {"name": "report"}}
    end = {"event_type": "workflow_end", "status": "completed"}
    error = {"type": "ValueError", "message": EVIL}
    forge(Path("logs"), "good", [start, end])
    forge(Path("logs"), "bad", [{**start, "workflow": {"name": EVIL}},
                                {**end, "status": "failed", "error": error}])  # fmt: skip
    forge(Path("logs"), "cut", [start, {"event_type": "step_start", "step_id": "a"}])


def written() -> Path:
    logs()
    done = child("timeline", "good", "bad", "cut", "--html", "pages", "--log-dir", "logs")
    assert (done.code, done.out) == (0, "")
    return Path("pages/index.html")


def names(page: Page) -> list[str]:
    return page.locator("#shown th").all_inner_texts()


def test_links_lead_to_the_pages_and_back(look: Look) -> None:
    index = written()
    look.may_open(index, *(Path(f"pages/runs/{name}.html") for name in ("good", "bad", "cut")))
    page = look.open(index)
    for name in ("good", "bad", "cut"):
        page.get_by_role("link", name=name).click()
        expect(page.locator("#id")).to_have_text(name)
        page.get_by_role("link", name="All runs").click()
        expect(page.locator("h1")).to_have_text("Runs")


def test_runs_are_sorted_searched_and_filtered(look: Look) -> None:
    page = look.open(written())
    expect(page.locator("#facts")).to_contain_text("1 run")

    page.get_by_role("button", name="Run").click()
    assert names(page) == ["bad", "cut", "good"]
    expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Run").click()
    assert names(page) == ["good", "cut", "bad"]
    page.get_by_label("Status", exact=True).select_option("failed")
    assert names(page) == ["bad"]
    expect(page.locator("#count")).to_have_text("1 of 3 runs")
    page.keyboard.press("Escape")
    assert len(names(page)) == 3
    page.keyboard.press("/")
    page.keyboard.type("interrupted")
    assert names(page) == ["cut"]


def test_a_hostile_log_only_looks_ugly(look: Look) -> None:
    page = look.open(written())

    expect(page.locator("#shown tr", has_text="bad")).to_contain_text("<b>bold</b>open1")
    assert page.locator("b, img").count() == 0


def test_crash_and_downtime_are_drawn(look: Look) -> None:
    other = TimedStory()
    other.execution(workflow={"name": "other"})
    other.at(3).end("completed", duration_ns=3 * SECOND)
    rows = [
        index_row(story.timeline(), f"runs/{name}.html")
        for name, story in (("a", crashed_and_resumed()), ("b", other))
    ]
    Path("index.html").write_text(render_index(index_content(rows, now_ns=SECOND)), "utf-8")
    page = look.open(Path("index.html"))
    first, second = page.locator("#shown tr").nth(0), page.locator("#shown tr").nth(1)

    expect(first).to_contain_text("killed once in draft")
    expect(first).to_contain_text("10.00 s, 2.00 s down")
    expect(first.locator(".crash")).to_have_count(1)
    expect(first.locator(".down")).to_have_count(1)
    expect(second.locator(".crash")).to_have_count(0)
    wide = [row.locator(".bar").first.bounding_box() for row in (first, second)]
    assert wide[0] is not None
    assert wide[1] is not None
    assert wide[1]["width"] < wide[0]["width"]  # one scale for all: 3 s and 4 s


@pytest.mark.parametrize(("scheme", "width"), sample(product(["light", "dark"], [400, 1280]), 1))
def test_it_is_accessible_and_fits(browser: Browser, scheme: str, width: int) -> None:
    look = Look(browser, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = look.open(written())
    found = Axe().run(page)
    fits = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()

    assert found.violations_count == 0, found.generate_report()
    assert fits
    assert look.noises == []
