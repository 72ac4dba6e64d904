"""The page of a run in a real browser, opened from the disk: it works, and requests nothing."""

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
from tapps_otel.log.event import raw_json
from tapps_otel.past.timeline import LogState
from tapps_otel.report.page.content import Recording, content
from tapps_otel.report.page.render import render
from timelines import SECOND, TimedStory, crashed_and_resumed


def write(story: TimedStory) -> Path:
    recording = Recording()
    for one in story.events:
        recording.see(one)
    timeline = story.timeline(log=LogState("r.jsonl", len(story.events), "ab" * 32))
    path = Path("page.html")
    path.write_text(render(content(timeline, story.history, recording)), "utf-8")
    return path


def nested() -> TimedStory:
    """``outer`` with two steps inside, one of which failed once; then 500 other steps."""
    story = TimedStory()
    story.execution(workflow={"name": "album"}, process={"pid": 7, "host": "box"})
    story.start("outer", agent="boss")
    story.start("outer/first", agent="writer", inputs=raw_json({"page": 7}))
    error = {"type": "ValueError", "message": "no ink", "stack": "Traceback\n  line 9"}
    story.at(1).fail("outer/first", error=error, retry_in_ns=SECOND)
    story.at(2).start("outer/first", agent="writer", inputs=raw_json({"page": 7}))
    artifacts = [{"name": "p", "path": "out/p.txt", "bytes": 9, "sha256": "cd" * 32}]
    story.at(3).finish("outer/first", "done", artifacts=artifacts)
    story.start("outer/second")
    story.at(4).finish("outer/second")
    story.finish("outer")
    for number in range(500):
        story.at(4 + number / 100).start(f"print#{number + 2}", agent="printer")
        story.finish(f"print#{number + 2}")
    story.at(10).end(duration_ns=10 * SECOND)
    return story


def expect_rows(page: Page, names: list[str]) -> None:
    """Wait until the page shows these rows: it draws them anew a moment after a change."""
    expect(page.locator("#list .row .text")).to_have_text(names)


def test_the_first_screen_tells_what_happened(look: Look) -> None:
    page = look.open(write(crashed_and_resumed()))

    expect(page.locator("h1")).to_have_text("✓ completed article")
    facts = page.locator("#facts").inner_text()
    for fact in ("draft after 2.00 s", "2.00 s after execution 1", "scan, check", "75%"):
        assert fact in facts
    expect_rows(page, ["execution 1", "execution 2", "scan", "draft", "check"])
    expect(page.locator("#bands .crash")).to_have_count(1)
    expect(page.locator(".down[data-after='1']")).to_have_count(1)
    expect(page.locator(".row .note")).to_have_text(
        ["killed", "not run again", "2 attempts", "not run again"]
    )


def test_zoom_pan_search_and_filters(look: Look) -> None:
    page = look.open(write(nested()))
    bar = page.get_by_role("row", name="outer").first.locator(".bar")
    wide = bar.evaluate("bar => bar.offsetWidth")

    page.get_by_label("Zoom in").click()
    page.wait_for_function("wide => document.querySelector('#window').hidden === false", arg=wide)
    page.keyboard.press("0")
    expect(page.locator("#window")).to_be_hidden()
    box = page.locator("#map").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.up()
    expect(page.locator("#window")).to_be_visible()
    page.wait_for_function(
        "wide => document.querySelector('.row:not(:first-child) .bar').offsetWidth > 2 * wide",
        arg=wide,
    )

    page.get_by_label("Search steps").fill("print#77")
    expect(page.locator("#count")).to_have_text("1 of 503 steps")
    page.get_by_label("Search steps").fill("")
    page.get_by_label("Agent", exact=True).select_option("writer")
    expect(page.locator("#count")).to_have_text("1 of 503 steps")
    expect_rows(page, ["outer", "first"])
    page.get_by_label("Agent", exact=True).select_option("")
    page.get_by_label("Attempts", exact=True).select_option("many")
    expect(page.locator("#count")).to_have_text("1 of 503 steps")
    page.get_by_label("Attempts", exact=True).select_option("")
    page.get_by_label("Status", exact=True).select_option("failed")
    expect_rows(page, ["outer", "first"])


def test_the_keyboard_is_enough(look: Look) -> None:
    page = look.open(write(nested()))
    page.keyboard.press("/")
    page.keyboard.type("second")
    page.keyboard.press("Enter")

    expect(page.locator("#about h2")).to_have_text("outer/second")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")  # to the step that encloses it, which opens and closes
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".row[aria-selected=true]")).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".row[aria-selected=true] .text")).to_have_text("first")
    page.keyboard.press("c")
    expect(page.locator("#list .part")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_details_events_and_the_log(look: Look) -> None:
    page = look.open(write(nested()))
    page.locator("#expand").click()
    page.get_by_role("row", name="first").locator(".text").click()
    about = page.locator("#about")

    for text in ("ValueError: no ink", "Traceback\n  line 9", '"page": 7', "out/p.txt", "writer"):
        expect(about).to_contain_text(text)
    page.get_by_role("tab", name="Events").click()
    expect(page.locator("#event-count")).to_have_text("1010 of 1010 events")
    page.get_by_label("Search events").fill("no ink")
    expect(page.locator("#event-list .event")).to_have_count(1)
    page.locator("#event-list .event").click()
    expect(about.locator("h2")).to_have_text("outer/first")
    page.get_by_role("tab", name="Run and log").click()
    expect(page.locator("#log")).to_contain_text("seq 1010")
    expect(page.locator("#log")).to_contain_text("ab" * 32)


def test_a_failed_gate_is_seen(look: Look) -> None:
    story = TimedStory()
    story.execution(workflow={"name": "Fix", "executor": "tapps-agents"})
    for name in ("fix", "review"):
        story.start(name)
        story.at(1).finish(name)
    found = {"passed": False, "score": 4.1, "failures": ["Overall score 4.10 below threshold 8.0"]}
    story.add("annotation", name="tapps.gate", step_id="review", attributes=found)
    story.add("annotation", name="tapps.workflow.type", attributes={"from": "a", "to": "b"})
    story.end()
    page = look.open(write(story))
    said = "gate failed with 4.1: Overall score 4.10 below threshold 8.0"

    expect(page.locator("#facts")).to_contain_text(f"review: {said}")
    expect(page.locator("#facts")).to_contain_text("a, then b")
    expect(page.locator(".row .note")).to_have_text(["gate failed"])
    page.get_by_role("row", name="review").locator(".text").click()
    expect(page.locator("#about")).to_contain_text(said)


@pytest.mark.exhaustive
@pytest.mark.timeout(300)
def test_a_run_of_a_hundred_thousand_steps_can_be_looked_at(look: Look) -> None:
    story = TimedStory()
    story.execution(workflow={"name": "wide"})
    for number in range(2, 100_002):
        story.at(number / 100).start(f"print#{number}")
        story.finish(f"print#{number}")
    page = look.open(write(story))

    expect(page.locator("#count")).to_have_text("100000 steps")
    assert page.locator("#list .row").count() < 100
    page.locator("#rows").press("End")
    expect(page.locator(".row[aria-selected=true] .text")).to_have_text("print#100001")
    page.get_by_label("Search steps").fill("print#77777")
    expect_rows(page, ["print#77777"])
    page.get_by_role("tab", name="Events").click()
    page.get_by_label("Search events").fill("print#4321")
    expect(page.locator("#event-count")).to_have_text("22 of 200001 events")


def test_a_page_that_is_being_read_tells_what_it_loads(look: Look) -> None:
    path = write(nested())
    whole = path.read_text("utf-8")
    path.write_text(whole[: len(whole) // 2], "utf-8")  # as a browser that has read so much has it
    page = look.open(path)

    expect(page.get_by_role("status")).to_have_text("Loading 503 steps…")
    path.write_text(whole, "utf-8")
    page.reload()
    expect(page.locator("#count")).to_have_text("503 steps")
    expect(page.locator("#loading")).to_be_hidden()


def test_a_damaged_run_is_drawn_up_to_the_damage(look: Look) -> None:
    start = {"event_type": "workflow_start", "timestamp": "2026-01-01T10:00:00.000000000Z"}
    step = {"step_id": "a", "step": "a", "timestamp": "2026-01-01T10:00:09.000000000Z"}
    log = forge(Path("logs"), "r", [start, {"event_type": "step_start", **step},
                                    {"event_type": "step_finish", **step}])  # fmt: skip
    log.write_bytes(log.read_bytes() + b"junk\njunk\n")
    assert child("timeline", "r", "--html", "page.html", "--log-dir", "logs").code == 1
    page = look.open(Path("page.html"))
    execution, last = page.locator("#list .bar").all()
    labels = page.locator("#facts dt")

    assert "damaged" in (execution.get_attribute("title") or "")
    colour = "bar => getComputedStyle(bar).backgroundColor"
    assert execution.evaluate(colour) != last.evaluate(colour)  # which has completed
    assert last.evaluate("bar => bar.offsetLeft + 3 <= bar.parentElement.clientWidth")
    assert labels.evaluate_all("all => all.every((one) => one.scrollWidth <= one.clientWidth)")


def test_all_steps_are_printed(look: Look) -> None:
    page = look.open(write(nested()))
    assert page.locator("#list .row").count() < 100

    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#list .row").count() == 502
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#list .row").count() < 100


def test_a_hostile_log_only_looks_ugly(look: Look) -> None:
    error = {"type": EVIL, "message": EVIL, "stack": EVIL}
    forge(
        Path("logs"),
        "r",
        [
            {"event_type": "workflow_start", "workflow": {"name": EVIL}, "inputs": EVIL},
            {"event_type": "step_start", "step_id": EVIL, "step": EVIL, "agent": EVIL},
            {"event_type": "step_fail", "step_id": EVIL, "status": EVIL, "error": error},
            {"event_type": "step_start", "step_id": "__proto__", "step": "constructor"},
            {"event_type": "workflow_end", "status": "toString", "error": error},
        ],
    )
    assert child("timeline", "r", "--html", "page.html", "--log-dir", "logs").code == 0
    page = look.open(Path("page.html"))
    page.locator("#list .row", has_text="open1").locator(".text").click()

    expect(page.locator("#about")).to_contain_text("<b>bold</b>")
    assert page.locator("b, img").count() == 0
    for tab in ("Events", "Run and log"):
        page.get_by_role("tab", name=tab).click()
    assert page.locator("b, img").count() == 0


@pytest.mark.parametrize(("scheme", "width"), sample(product(["light", "dark"], [400, 1280]), 1))
def test_it_is_accessible_and_fits(browser: Browser, scheme: str, width: int) -> None:
    look = Look(browser, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = look.open(write(nested()))
    page.get_by_role("row", name="print#2 ").first.locator(".text").click()
    found = [Axe().run(page)]
    page.keyboard.press("Escape")
    for tab in ("Events", "Run and log"):
        page.get_by_role("tab", name=tab).click()
        found.append(Axe().run(page))
    fits = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()

    assert [one.generate_report() for one in found if one.violations_count] == []
    assert fits
    assert look.noises == []
