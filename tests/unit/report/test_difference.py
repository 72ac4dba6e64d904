"""How two runs differ, as lines for people."""

from __future__ import annotations

import pytest

from histories import Story
from tapps_otel.log.event import raw_json
from tapps_otel.past.difference import RunDiff, compare
from tapps_otel.report.difference import difference_lines
from tapps_otel.report.text import width

EVIL = "\x1b]0;pwned\x07\u202e</script>|`#*\ud800\n- 東京"


def lines(diff: RunDiff, *, wide: int | None = None, everything: bool = False) -> list[str]:
    return [line.text for line in difference_lines(diff, wide=wide, everything=everything)]


def weather(city: str, status: int) -> Story:
    story = Story()
    story.execution(workflow={"name": "report"}, inputs=raw_json({"city": city}))
    story.step("scan", inputs_digest="s")
    story.start("fetch", inputs_digest=city, inputs=raw_json({"city": city}))
    story.finish("fetch", {"status": status}, duration_ns=10**6 * status)
    story.start("draft", inputs_digest="d")
    if status == 200:
        story.finish("draft", "text")
        story.step("cleanup")
        story.end(result=raw_json("text"))
    else:
        story.fail("draft", error={"type": "ValueError", "message": "no"})
        story.end("failed", error={"type": "ValueError", "message": "no"})
    return story


def test_the_first_divergence_is_first() -> None:
    found = compare(weather("Oslo", 200).history, weather("Rome", 503).history)
    shown = lines(found)
    first = shown.index("first divergence")

    assert [one for one in shown[:first] if not one.startswith("time")] == [
        "runs      r -> r",
        "workflow  report",
        "status    completed -> failed",
        "steps     4 -> 3, 1 alike",
        'inputs    $.city  "Oslo" -> "Rome"',
        "error     r: ValueError: no",
        "",
    ]
    assert shown[first + 1 : first + 6] == [
        "  ~ fetch  step 2 of 4 -> 2 of 3",
        "    other inputs",
        "    other result",
        '    inputs $.city  "Oslo" -> "Rome"',
        "    result $.status  200 -> 503",
    ]
    assert "2 more steps that differ" in shown
    assert "  ~ draft    failed, was completed: ValueError: no" in shown
    assert "  - cleanup  only in r" in shown


def test_equal_runs() -> None:
    story = weather("Oslo", 200).history

    assert "equal     they differ in nothing but time" in lines(compare(story, story))


def test_steps_without_logged_inputs_say_how_to_log_them() -> None:
    a, b = Story(), Story()
    for story, digest in ((a, "1"), (b, "2")):
        story.execution()
        story.step("x", inputs_digest=digest)

    assert any("the setting capture_inputs logs them" in one for one in lines(compare(
        a.history, b.history)))  # fmt: skip


def many() -> RunDiff:
    a, b = Story(), Story()
    for story, digest in ((a, "1"), (b, "2")):
        story.execution()
        for number in range(1, 301):
            story.step(f"fetch#{number}", inputs_digest=f"{digest}{number}")
    b.step("extra")
    return compare(a.history, b.history)


def test_many_steps_are_summed_up_by_name() -> None:
    shown = lines(many())

    assert "  ~ fetch x299  other inputs" in shown
    assert any(one.startswith("  + extra") for one in shown)
    assert len(shown) < 30
    assert len(lines(many(), everything=True)) > 300


def test_many_names_are_limited() -> None:
    b = Story()
    b.execution()
    for number in range(5000):
        b.step(f"step{number}")
    shown = lines(compare(Story().history, b.history))

    assert len(shown) < 60
    assert any("4959 rows are left out" in one for one in shown)


@pytest.mark.parametrize("wide", [60, 100, 200])
def test_hostile_text_only_looks_ugly(wide: int) -> None:
    a, b = Story(), Story()
    for story, mark in ((a, "1"), (b, "2")):
        story.execution(workflow={"name": EVIL + mark}, inputs=raw_json({EVIL: mark}))
        story.start(EVIL, inputs_digest=mark, inputs=raw_json([EVIL, mark]))
        story.fail(EVIL, error={"type": EVIL, "message": EVIL + mark, "stack": EVIL})
        story.step(EVIL + mark)
        story.end(EVIL + mark, error={"type": EVIL, "message": EVIL * 1000})
    shown = lines(compare(a.history, b.history), wide=wide)

    assert all(one.isprintable() and width(one) <= wide for one in shown)
