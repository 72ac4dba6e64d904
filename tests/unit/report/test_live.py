"""The view of a run in progress: it fits any terminal, and few lines of a large run stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import AT, Story
from tapps_otel.report.lines import Line
from tapps_otel.report.live import Sparing, view
from tapps_otel.report.progress import Progress
from tapps_otel.report.text import width

EVIL = "\x1b]0;pwned\x07\u202e\ud800\n東京" * 20
SECOND = 10**9


def progress_of(story: Story) -> Progress:
    progress = Progress()
    for event in story.events:
        progress.feed(event)
    return progress


def shown(progress: Progress, *, size: tuple[int, int] = (80, 24), after: int = 3) -> list[str]:
    lines = view("r", progress, [], now_ns=AT + after * SECOND + 1000, size=size)
    return [line.text for line in lines]


def story() -> Story:
    made = Story()
    made.execution(workflow={"name": "article"}, process={"pid": 7, "host": "box"})
    made.step("scan")
    made.start("outer")
    made.start("outer/draft", agent="writer")
    made.start("fetch")
    made.fail("fetch", retry_in_ns=5 * SECOND)
    return made


def test_it_tells_what_is_in_progress_and_for_how_long() -> None:
    assert shown(progress_of(story())) == [
        "… r  3.0 s  article, execution 1, process 7 on box",
        "  1 step finished, 1 running, 1 waiting for a retry",
        "  … outer/draft  3.0 s  writer",
        "  · fetch        retry in 2.0 s",
    ]


@pytest.mark.parametrize(("after", "text"), [(0, "0.0 s"), (12, "12 s"), (75, "1 min 15 s")])
def test_elapsed_time_gets_coarser(after: int, text: str) -> None:
    assert shown(progress_of(story()), after=after)[0].startswith(f"… r  {text}  ")


def test_a_clock_that_goes_back_makes_no_negative_time() -> None:
    assert shown(progress_of(story()), after=-9)[2] == "  … outer/draft  0.0 s  writer"


def test_a_run_that_nothing_executes_has_no_elapsed_time() -> None:
    lines = view(
        "r", progress_of(story()), [], now_ns=AT + SECOND, size=(80, 24), stopped="interrupted"
    )

    assert lines[0].text == "! r  interrupted"
    assert lines[2].text == "  … outer/draft  cut off  writer"
    assert lines[3].text == "  · fetch        cut off"


def test_of_the_lines_that_do_not_stay_the_last_are_shown() -> None:
    sparing = Sparing()
    lines = [Line.of(("✓ ", "good"), str(number)) for number in range(100)]
    kept = [line for line in lines if sparing.keeps(line)]
    shown = view("r", progress_of(story()), sparing.recent, now_ns=AT, size=(80, 8))

    assert lines[: len(kept)] == kept
    assert [line.text for line in shown[-3:]] == ["  ✓ 97", "  ✓ 98", "  ✓ 99"]
    assert len(shown) <= 8


def test_of_many_steps_in_progress_the_oldest_are_shown() -> None:
    made = Story()
    made.execution()
    for number in range(1000):
        made.start(f"a#{number + 1}")
    lines = shown(progress_of(made))

    assert len(lines) == 2 + 12
    assert lines[1] == "  0 steps finished, 1000 running"
    assert lines[2].startswith("  … a#1 ")
    assert lines[-1] == "  and 989 more"


@given(
    columns=st.integers(20, 200),
    rows=st.integers(6, 60),
    names=st.lists(st.sampled_from([EVIL, "a", "b" * 300, "東" * 90, "x/y", ""]), max_size=30),
)
def test_it_fits_any_terminal(columns: int, rows: int, names: list[str]) -> None:
    made = Story()
    made.execution(workflow={"name": EVIL}, process={"pid": EVIL, "host": EVIL})
    for number, name in enumerate(names):
        made.start(f"{name}#{number}", agent=EVIL)
    for name in names[:3]:
        made.add("annotation", name=name)
    progress = Progress()
    recent = [line for event in made.events if (line := progress.feed(event)) is not None]
    lines = view(EVIL, progress, recent, now_ns=AT, size=(columns, rows))

    assert len(lines) <= rows
    assert all(width(line.text) <= columns for line in lines)
    assert all(line.text.isprintable() for line in lines)


def test_the_first_lines_stay_and_later_ones_if_they_did_not_go_well() -> None:
    sparing = Sparing()
    good, bad = Line.of(("✓ ", "good"), "a"), Line.of(("✗ ", "bad"), "b")
    kept = [sparing.keeps(good) for _ in range(2000)]

    assert sum(kept) == kept.index(False)
    assert sparing.hidden == 2000 - sum(kept)
    assert sparing.keeps(bad)
    assert sum(sparing.keeps(bad) for _ in range(5000)) < 100


def test_where_nothing_is_drawn_anew_counts_get_rare() -> None:
    sparing, line = Sparing(), Line.of(("✓ ", "good"), "a")
    told = [
        sparing.hidden for _ in range(12_000) if not sparing.keeps(line) and sparing.is_milestone
    ]

    assert told == [100, 200, 500, 1000, 2000, 5000, 10_000]
