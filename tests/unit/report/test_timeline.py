"""The timeline as text: facts first, then bars that fit and can be read without colours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import AT
from tapps_otel.past.timeline import LogState, Timeline
from tapps_otel.report import timeline as report
from tapps_otel.report.lines import Line, fact_lines
from tapps_otel.report.scale import Scale
from tapps_otel.report.text import width
from timelines import SECOND, TimedStory, crashed_and_resumed

EVIL = "\x1b]0;pwned\x07\u202e</script>|`#*_[x](y)\ud800\n- 東京"


def chart(timeline: Timeline, columns: int = 100, *, everything: bool = False) -> list[str]:
    lines = report.chart(timeline, columns=columns, everything=everything)
    return [line.text for line in lines]


def row(timeline: Timeline, name: str, columns: int = 100) -> str:
    (found,) = (line for line in chart(timeline, columns) if re.search(rf"[^ ] {name} ", line))
    return found


def fan_out(count: int) -> TimedStory:
    story = TimedStory()
    story.execution()
    for number in range(1, count + 1):
        name = "fetch" if number == 1 else f"fetch#{number}"
        story.at(number - 1).start(name)
        story.at(number).finish(name)
    return story


def facts(timeline: Timeline, wide: int | None = None) -> list[Line]:
    return fact_lines(report.summary(timeline), wide=wide)


def test_the_facts_answer_what_happened() -> None:
    assert [line.text for line in facts(crashed_and_resumed().timeline())] == [
        "run       r",
        "workflow  article",
        "status    completed at 2025-11-13 02:13:30 UTC, after 2 executions",
        "time      10.00 s: 8.00 s running, 2.00 s down",
        "killed    draft after 2.00 s (execution 1 at 02:13:24.000, process 7 on box)",
        "down      2.00 s after execution 1, 02:13:24.000 to 02:13:26.000",
        "kept      2 steps not run again: scan, check",
        "costs     draft 6.00 s (75%), scan 2.00 s (25%)",
    ]


def test_what_is_wrong_with_a_log_is_among_the_facts() -> None:
    story = TimedStory()
    story.execution()
    story.at(1).add("log_gap", attributes={"dropped": 3})
    story.end("failed", error={"type": "ValueError", "message": "no"})
    log = LogState("r.jsonl", 3, "ab", ((1, 2),), "9 bytes", "damaged at byte 9")
    shown = "\n".join(line.text for line in facts(story.timeline(log=log)))

    assert "error     ValueError: no\n" in shown
    assert "gap       3 events could not be written\n" in shown
    assert "repairs   1, declared in the log" in shown
    assert "log end   9 bytes\n" in shown
    assert "damaged   shown up to seq 3" in shown


def test_a_run_that_has_not_begun_has_no_chart() -> None:
    timeline = TimedStory().timeline()

    assert [line.text for line in facts(timeline)][2] == "status    not begun"
    assert chart(timeline) == []
    assert report.as_markdown(timeline)[-1] == "- **time**: 0.0 ms"


def test_bars_show_crash_downtime_and_what_the_run_waited_for() -> None:
    timeline = crashed_and_resumed().timeline()

    assert re.search(r"^! execution 1 +━{10,}!░* 2\.00 s ░* +4\.00 s interrupted$",
                     row(timeline, "execution 1"))  # fmt: skip
    assert re.search(r"^✓ execution 2 +░+━+ +4\.00 s completed$", row(timeline, "execution 2"))
    assert re.search(r"^✓ scan +█+ +░+ +2\.00 s not run again$", row(timeline, "scan"))
    assert re.search(r"^✓ draft +█+!░+█+ +6\.00 s 2 attempts, writer$", row(timeline, "draft"))
    assert re.search(r"^✓ check +▒+ +░+ +1\.00 s not run again$", row(timeline, "check"))
    assert chart(timeline, columns=120)[-1] == (
        "█ the run waited for it   ▒ beside or around that   ! killed or interrupted   "
        "░ down, not to scale"
    )


def test_inner_steps_are_indented_and_waits_and_failures_drawn() -> None:
    story = TimedStory()
    story.execution()
    story.start("outer")
    story.start("outer/inner")
    story.at(3).fail("outer/inner", retry_in_ns=5 * SECOND)
    story.at(7).start("outer/inner")
    story.at(9).fail("outer/inner")
    story.fail("outer")
    story.at(10).end("failed", duration_ns=10 * SECOND)

    assert re.search(r"^  ✗ inner +█+✗·+█+✗ +5\.00 s failed, 2 attempts$",
                     row(story.timeline(), "inner"))  # fmt: skip


def test_a_run_in_progress_is_drawn_until_now() -> None:
    story = TimedStory()
    story.execution()
    story.start("draft")
    timeline = story.timeline(now_ns=AT + 5 * SECOND)

    assert "in progress at" in facts(timeline)[2].text
    assert re.search(r"^… draft +█+… +5\.00 s running$", row(timeline, "draft"))


@pytest.mark.parametrize("columns", [20, 40, 60, 79, 80, 100, 200, 500])
def test_the_chart_fits_any_width(columns: int) -> None:
    story = fan_out(30)
    story.at(40).execution()
    story.start(EVIL, agent=EVIL)
    timeline = story.timeline()

    lines = [*facts(timeline, columns), *report.chart(timeline, columns=columns)]
    assert max(width(line.text) for line in lines) <= max(22, columns)
    assert all(line.text.isprintable() for line in lines)


def test_the_end_of_a_killed_execution_is_marked_at_any_width() -> None:
    for columns in range(50, 160):
        killed = row(crashed_and_resumed().timeline(), "execution 1", columns)

        assert "!" in killed.removeprefix("! execution 1"), columns


def test_a_long_downtime_leaves_room_for_what_ran() -> None:
    story = TimedStory()
    story.execution()
    story.start("scan")
    story.at(2).finish("scan")
    story.at(86_400 * 3 + 2).execution()
    story.start("draft")
    story.at(86_400 * 3 + 4).finish("draft")
    scale = Scale(story.timeline(), 100)

    assert len(scale.cells(AT, AT + 2 * SECOND)) >= 40
    assert len(scale.shortened) == 1
    assert len(dict(scale.ticks())) >= 4
    assert "72 h 00 min" in row(story.timeline(), "execution 1")


def test_positions_rise_with_time() -> None:
    scale = Scale(crashed_and_resumed().timeline(), 90)
    positions = [scale.position(AT + tenth * SECOND // 10) for tenth in range(101)]

    assert positions == sorted(positions)
    assert (positions[0], round(positions[-1], 6)) == (0, 90)


def test_many_steps_are_summed_up_by_name() -> None:
    timeline = fan_out(200).timeline()
    summed, whole = chart(timeline), chart(timeline, everything=True)

    assert len(summed) < 10
    assert any("fetch x200" in line for line in summed)
    assert sum("fetch" in line for line in whole) == 200


def test_a_sum_of_steps_marks_only_those_that_did_not_complete() -> None:
    story = fan_out(70)
    story.at(20).start("fetch#100")
    story.at(21).fail("fetch#100", retry_in_ns=SECOND)
    story.at(22).start("fetch#100")
    story.at(23).finish("fetch#100")
    assert "✗" not in row(story.timeline(), "fetch x71")

    story.at(30).start("fetch#101")
    story.at(31).fail("fetch#101")
    assert row(story.timeline(), "fetch x72").count("✗") == 2  # the step and the end of its bar


def test_of_many_names_those_that_failed_or_cost_most_are_kept() -> None:
    story = TimedStory()
    story.execution()
    for number in range(100):
        story.at(number).start(f"step-{number}")
        story.at(number + (0.9 if number == 70 else 0.1)).finish(f"step-{number}")
    story.start("bad")
    story.fail("bad")
    shown = "\n".join(chart(story.timeline()))

    assert "✓ step-70 " in shown
    assert "✗ bad " in shown
    assert "and 41 rows more: --all shows everything" in shown


def test_markdown_has_the_facts_the_chart_and_a_table() -> None:
    lines = report.as_markdown(crashed_and_resumed().timeline())

    assert lines[0] == "# article: r"
    assert (
        "- **killed**: draft after 2.00 s (execution 1 at 02:13:24.000, process 7 on box)" in lines
    )
    assert lines.count("```") == 1
    assert "| scan | 02:13:20.000 | 2.00 s | 1 | ✓ completed | not run again |" in lines
    assert "| draft | 02:13:22.000 | 6.00 s | 2 | ✓ completed | writer |" in lines


def test_markdown_of_hostile_names_has_no_markup() -> None:
    story = TimedStory()
    story.execution(workflow={"name": EVIL})
    story.start("```", agent=EVIL)
    story.fail("```")
    story.start(EVIL, agent=EVIL)
    story.fail(EVIL, error={"type": EVIL, "message": EVIL}, reason=EVIL)
    lines = report.as_markdown(story.timeline())
    fence = lines.index("````text")
    outside = [*lines[:fence], *lines[lines.index("````") :]]

    assert all(line.isprintable() for line in lines)
    for line in outside:
        text = re.sub(r"\\[\\`*_\[\]<>|&~#!$]", "", line)
        assert not re.search(r"[<>`\[\]]", text.strip("`"))
    (cells,) = (line for line in outside if line.startswith("| \\\\x1b"))
    assert len(re.findall(r"(?<!\\)\|", cells)) == 7


def test_markdown_of_many_steps_says_what_is_left_out() -> None:
    assert (
        report.as_markdown(fan_out(70).timeline())[-1] == "10 steps more: `--all` shows everything."
    )
    assert "| fetch\\#70 |" in report.as_markdown(fan_out(70).timeline(), everything=True)[-1]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["execution", "start", "finish", "fail", "end"]),
            st.sampled_from(["a", "a/b", "a/b/c", "b", ""]),
            st.floats(-5, 50),
            st.integers(-(2**40), 2**40),
        ),
        max_size=12,
    ),
    st.integers(20, 120),
)
def test_any_events_are_drawn(events: list[tuple[str, str, float, int]], columns: int) -> None:
    story = TimedStory()
    for what, step_id, second, number in events:
        story.at(second)
        if what == "execution":
            story.execution()
        elif what == "end":
            story.end(duration_ns=number)
        else:
            fields = {"retry_in_ns": number} if what == "fail" else {}
            getattr(story, what)(step_id, **fields)
    timeline = story.timeline()

    lines = [*facts(timeline, columns), *report.chart(timeline, columns=columns)]
    assert all(width(line.text) <= max(22, columns) for line in lines)
