"""What captured spans of libraries used: each token once, for the step that it was used in."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest

from histories import Story
from logs import ID
from tapps_otel.past import long_run, usage
from tapps_otel.past.fold import RunHistory, fold
from tapps_otel.past.long_run import LongFold
from tapps_otel.past.usage import (
    ATTRIBUTES,
    NO_USAGE,
    InnermostSpans,
    ModelUsage,
    Usage,
    usage_of,
)

CHAT: dict[str, Any] = {
    "gen_ai.response.model": "large",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}
AGENT: dict[str, Any] = {
    "gen_ai.request.model": "large",
    "gen_ai.usage.input_tokens": 200,
    "gen_ai.usage.output_tokens": 20,
}


def used(calls: int, model: str = "large", **tools: int) -> Usage:
    """What so many calls as CHAT used."""
    model_usage = ModelUsage(calls, 100 * calls, 10 * calls)
    return Usage(calls, 100 * calls, 10 * calls, {model: model_usage}, tools)


def started_run(**fields: Any) -> Story:
    story = Story()
    story.execution(span_id="run", **fields)
    return story


def span(story: Story, span_id: str, parent: str | None, attributes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"span_id": span_id, "otel": {"attributes": attributes}}
    if parent is not None:
        fields["parent_span_id"] = parent
    story.add("span", name="chat", **fields)


def begin(story: Story, span_id: str, parent: str) -> None:
    story.add("span_start", span_id=span_id, parent_span_id=parent, name="chat")


def story_of(*spans: tuple[str, str | None, dict[str, Any]]) -> RunHistory:
    """A run whose step `draft` has the span `d`, and these captured spans."""
    story = started_run()
    story.start("draft", span_id="d", parent_span_id="run")
    for one in spans:
        span(story, *one)
    story.finish("draft")
    return fold(ID, story.events)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(CHAT, used(1), id="OpenTelemetry"),
        pytest.param(
            {
                "gen_ai.request.model": "large",
                "gen_ai.usage.prompt_tokens": 100,
                "gen_ai.usage.completion_tokens": 10,
            },
            used(1),
            id="OpenTelemetry, old names",
        ),
        pytest.param(
            {
                "llm.model_name": "large",
                "llm.token_count.prompt": 100,
                "llm.token_count.completion": 10,
                "llm.token_count.total": 110,
            },
            used(1),
            id="OpenInference",
        ),
        pytest.param(
            {
                "llm.request.model": "large",
                "llm.usage.prompt_tokens": 100,
                "llm.usage.completion_tokens": 10,
                "llm.usage.total_tokens": 110,
            },
            used(1),
            id="OpenLLMetry",
        ),
        pytest.param(
            {**CHAT, "llm.usage.prompt_tokens": 100, "llm.token_count.prompt": 100},
            used(1),
            id="two conventions on one span",
        ),
        pytest.param(
            {"gen_ai.usage.input_tokens": 7},
            Usage(1, 7, 0, {"unknown": ModelUsage(1, 7, 0)}),
            id="no model, no output",
        ),
        pytest.param(
            {"gen_ai.usage.output_tokens": 7},
            Usage(1, 0, 7, {"unknown": ModelUsage(1, 0, 7)}),
            id="no model, no input",
        ),
        pytest.param(
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
            Usage(tools={"search": 1}),
            id="a tool of OpenTelemetry",
        ),
        pytest.param({"tool.name": "search"}, Usage(tools={"search": 1}), id="of OpenInference"),
        pytest.param(
            {"traceloop.span.kind": "tool", "traceloop.entity.name": "search"},
            Usage(tools={"search": 1}),
            id="of OpenLLMetry",
        ),
        pytest.param(
            {"traceloop.span.kind": "agent", "traceloop.entity.name": "writer"},
            NO_USAGE,
            id="no tool",
        ),
        pytest.param({"http.request.method": "GET"}, NO_USAGE, id="another library"),
        pytest.param({**CHAT, "tapps.workflow.id": "r"}, NO_USAGE, id="one of our own"),
        pytest.param(
            {"gen_ai.usage.input_tokens": True, "gen_ai.usage.output_tokens": -5},
            NO_USAGE,
            id="no numbers of tokens",
        ),
    ],
)
def test_each_library_names_it_in_its_own_way(attributes: dict[str, Any], expected: Usage) -> None:
    assert usage_of(attributes) == expected


def test_what_is_kept_of_a_large_span_tells_as_much() -> None:
    large: dict[str, Any] = {
        **CHAT,
        "gen_ai.tool.name": "search",
        "gen_ai.input.messages": "x" * 100_000,
    }

    large["gen_ai.request.model"] = "x" * 100_000

    kept = usage.usage_attributes(large)
    assert usage_of(kept) == usage_of(large)
    assert len(str(kept)) < 1_000


def test_no_name_has_two_meanings() -> None:
    names = [name for names in ATTRIBUTES.values() for name in names]

    assert len(names) == len(set(names))


# ---------------------------------------------------------------- which spans count


def test_tokens_are_summed_up_by_attempt_step_and_run() -> None:
    story = started_run()
    for attempt in ("d1", "d2"):
        story.start("draft", span_id=attempt)
        span(story, f"{attempt}-chat", attempt, CHAT)
        story.fail("draft")
    span(story, "outside", "run", {**CHAT, "gen_ai.response.model": "small"})
    span(story, "alone", None, CHAT)
    found = fold(ID, story.events)

    draft = found.by_id["draft"]
    assert [attempt.usage for attempt in draft.attempts] == [used(1), used(1)]
    assert draft.usage == used(2)
    assert (found.usage.calls, found.usage.input_tokens, found.usage.output_tokens) == (4, 400, 40)
    assert {name: one.calls for name, one in found.usage.models.items()} == {
        "large": 3,
        "small": 1,
    }


AGENT_SPANS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("c1", "loop", CHAT),
    ("search", "loop", {"gen_ai.tool.name": "search"}),
    ("c2", "loop", CHAT),
    ("loop", "agent", {}),
    ("agent", "d", {**AGENT, "gen_ai.tool.name": "delegate"}),
]


@pytest.mark.parametrize("order", range(24))
def test_an_agent_that_repeats_the_tokens_of_its_calls_is_not_counted(order: int) -> None:
    spans = AGENT_SPANS[:]
    if order:
        random.Random(order).shuffle(spans)
    found = story_of(*spans)

    expected = used(2, search=1, delegate=1)
    assert found.by_id["draft"].usage == found.usage == expected


@pytest.mark.parametrize("order", range(24))
def test_spans_whose_start_is_in_the_log_are_counted_as_others(order: int) -> None:
    story = started_run()
    story.start("draft", span_id="d", parent_span_id="run")
    spans = AGENT_SPANS[:]
    random.Random(order).shuffle(spans)
    for span_id, parent, _ in spans:
        begin(story, span_id, str(parent))
    random.Random(order + 1).shuffle(spans)
    for one in spans:
        span(story, *one)
    found = fold(ID, story.events)

    assert found.by_id["draft"].usage == found.usage == used(2, search=1, delegate=1)


def test_calls_below_an_agent_that_was_killed_count_for_its_step() -> None:
    story = started_run()
    story.start("draft", span_id="d", parent_span_id="run")
    begin(story, "agent", "d")
    begin(story, "c1", "agent")
    span(story, "c1", "agent", CHAT)
    begin(story, "c2", "agent")
    killed = fold(ID, story.events)
    span(story, "agent", "d", AGENT)

    assert killed.by_id["draft"].usage == killed.usage == used(1)
    assert fold(ID, story.events).usage == used(1)


def test_an_agent_whose_calls_tell_no_tokens_is_counted() -> None:
    found = story_of(("c1", "agent", {"gen_ai.response.model": "large"}), ("agent", "d", CHAT))

    assert found.usage == found.by_id["draft"].usage == used(1)


def test_an_agent_counts_if_the_calls_below_it_are_those_of_an_inner_step() -> None:
    story = started_run()
    story.start("outer", span_id="o", parent_span_id="run")
    story.start("outer/inner", span_id="i", parent_span_id="agent")
    span(story, "c1", "i", CHAT)
    span(story, "agent", "o", AGENT)
    found = fold(ID, story.events)

    assert found.by_id["outer/inner"].usage == used(1)
    assert found.by_id["outer"].usage.input_tokens == 200
    assert found.usage.input_tokens == 300


def test_an_agent_around_the_whole_run_is_not_counted() -> None:
    story = started_run(parent_span_id="agent")
    story.start("draft", span_id="d")
    span(story, "c1", "d", CHAT)
    span(story, "agent", "request", AGENT)
    span(story, "request", None, AGENT)

    assert fold(ID, story.events).usage == used(1)


def test_a_span_that_was_captured_twice_is_counted_once() -> None:
    assert story_of(("c1", "d", CHAT), ("c1", "d", CHAT)).usage == used(1)


def test_spans_that_enclose_each_other_in_a_circle_do_no_harm() -> None:
    found = story_of(("a", "b", CHAT), ("b", "c", CHAT), ("c", "a", CHAT), ("x", "x", CHAT))

    assert found.status == "running"


def test_a_log_with_very_many_spans_inside_each_other_is_read_in_bounded_time() -> None:
    """What a span takes does not grow with the number of those above it: its look-ups do not."""
    looked_up = 0

    def count(_: object, what: str, function: Any) -> None:
        nonlocal looked_up
        looked_up += what == "c_call" and function.__name__ == "get"

    spans = InnermostSpans()
    sys.setprofile(count)
    try:
        for number in range(1000):
            spans.add(str(number), str(number - 1), used(1))
    finally:
        sys.setprofile(None)

    assert looked_up < 1000 * 150


def test_a_log_with_any_number_of_models_is_bounded() -> None:
    spans = [(f"c{n}", "d", {**CHAT, "gen_ai.response.model": f"m{n}"}) for n in range(500)]
    found = story_of(*spans)

    assert len(found.usage.models) <= 101
    assert sum(one.calls for one in found.usage.models.values()) == found.usage.calls == 500


def test_late_spans_of_finished_steps_count_for_them() -> None:
    story = started_run()
    story.start("draft", span_id="d")
    story.finish("draft")
    story.start("check", span_id="k")
    span(story, "c1", "d", CHAT)
    found = fold(ID, story.events)

    assert (found.by_id["draft"].usage, found.by_id["check"].usage) == (used(1), NO_USAGE)


# ---------------------------------------------------------------- long runs


def test_the_sums_of_a_long_run_are_those_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_run, "_MOST", 20)
    monkeypatch.setattr(usage, "_MOST_SPANS", 50)
    story = started_run()
    before: list[str] = []
    for number in range(1, 501):
        step_id = f"draft#{number}"
        story.start(step_id, span_id=f"d{number}")
        story.finish(step_id)
        before.append(f"d{number}")
        if len(before) == 25:  # a batch that comes after its steps
            for parent in before:
                span(story, f"of {parent}", parent, CHAT)
            before.clear()
    whole, long = fold(ID, story.events), LongFold(ID)
    for event in story.events:
        long.feed(event)

    kept = [step.usage for step in long.history.by_id.values()]
    assert long.history.usage == whole.usage == used(500)
    assert long.summed_up["draft"].usage.calls + sum(one.calls for one in kept) == 500
    assert len(long._fold._usage._owners) <= 40
    assert len(long._fold._usage._spans._seen) <= 50
