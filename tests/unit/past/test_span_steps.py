"""Steps that are made of spans: their places, their ends, and what they used."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from histories import AT, Story
from tapps_otel import clock
from tapps_otel.log.event import Event
from tapps_otel.names import SPANS
from tapps_otel.past.span_rules import SpanMatch, SpanRules, as_json
from tapps_otel.past.span_steps import SpanSteps, end_of
from tapps_otel.past.usage import ModelUsage, Usage

RULES = SpanRules(
    root=SpanMatch(name="root"),
    steps=[
        SpanMatch(name="step*"),
        SpanMatch(scope="mailer"),
        SpanMatch(attributes={"late": "*"}),
    ],
    agent="by",
    action="what",
)
ERROR = 2


class Spans(Story):
    """A run's spans, one event each; those that begin keep what is above them."""

    def __init__(self) -> None:
        super().__init__()
        self.execution(span_id="run")
        self._above: dict[str, str | None] = {}

    def begin(self, span_id: str, above: str | None = "run", **fields: Any) -> Event:
        self._above[span_id] = above
        return self._add("span_start", span_id, fields)

    def end(self, span_id: str, **fields: Any) -> Event:  # type: ignore[override]
        return self._add("span", span_id, fields)

    def whole(self, span_id: str, above: str | None = "run", **fields: Any) -> Event:
        self._above[span_id] = above
        return self._add("span", span_id, fields)

    def _add(self, event_type: str, span_id: str, fields: dict[str, Any]) -> Event:
        above = self._above.get(span_id)
        given = {} if above is None else {"parent_span_id": above}
        note = {name: fields.pop(name) for name in [*fields] if name in NOTED}
        self.add(event_type, **{"name": "step", "span_id": span_id, "otel": note} | given | fields)
        return self.events[-1]


NOTED = {"attributes", "scope", "status", "events"}


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def steps() -> SpanSteps:
    return SpanSteps(RULES, "run")


def made(steps: SpanSteps, *events: Event) -> list[str]:
    return [f"{one.event_type} {one.step_id}" for event in events for one in steps.feed(event)]


def test_a_span_is_a_step_from_its_start_to_its_end(spans: Spans, steps: SpanSteps) -> None:
    attributes = {"by": "ann", "what": "write"}
    begun = spans.begin("a", attributes=attributes)
    ended = spans.end("a", attributes=attributes, duration_ns=7)
    [start], [finish] = (list(steps.feed(one)) for one in (begun, ended))

    assert (start.event_type, start.step, start.step_id) == ("step_start", "step", "step")
    assert (start.agent, start.action, start.attempt) == ("ann", "write", 1)
    assert (start.span_id, start.seq, start.execution) == ("a", begun.seq, 1)
    assert (start.workflow_id, start.timestamp) == (begun.workflow_id, begun.timestamp)
    assert (finish.event_type, finish.step_id, finish.attempt) == ("step_finish", "step", 1)
    assert (finish.span_id, finish.seq, finish.execution) == ("a", ended.seq, 1)
    assert (finish.workflow_id, finish.timestamp) == (ended.workflow_id, ended.timestamp)
    assert (finish.status, finish.duration_ns) == ("completed", 7)


def test_a_span_without_a_start_began_before_it_ended(spans: Spans, steps: SpanSteps) -> None:
    ended = spans.whole("a", timestamp=clock.timestamp(AT + 100), duration_ns=40)
    start, finish = steps.feed(ended)
    odd = spans.whole("b", timestamp=clock.timestamp(10), duration_ns=40)

    assert (start.timestamp, finish.timestamp) == (clock.timestamp(AT + 60), ended.timestamp)
    assert next(iter(steps.feed(odd))).timestamp == clock.timestamp(0)


def test_steps_are_numbered_and_inside_of_those_that_enclose_them(
    spans: Spans, steps: SpanSteps
) -> None:
    events = [
        spans.begin("a", name="step/1"),
        spans.begin("b", "a", name="other"),  # no step: what is inside is in the one around it
        spans.begin("c", "b", name="step"),
        spans.end("c", name="step"),
        spans.whole("d", "b", name="step"),
        spans.begin("e", name="mail", scope={"name": "mailer"}),
        spans.begin("f", name="mail", scope="mailer"),
        spans.end("a", name="step/1"),
        spans.whole("g", name="step/1"),
    ]

    assert made(steps, *events) == [
        "step_start step%2F1",
        "step_start step%2F1/step",
        "step_finish step%2F1/step",
        "step_start step%2F1/step#2",
        "step_finish step%2F1/step#2",
        "step_start mail",
        "step_finish step%2F1",
        "step_start step%2F1#2",
        "step_finish step%2F1#2",
    ]


def test_what_a_span_has_at_its_end_makes_it_a_step(spans: Spans, steps: SpanSteps) -> None:
    events = [
        spans.begin("a", name="call"),
        spans.begin("b", "a"),
        spans.end("a", name="call", attributes={"late": 1}),
        spans.whole("c", "a"),
    ]

    assert made(steps, *events) == [
        "step_start step",
        "step_start call",
        "step_finish call",
        "step_start call/step",
        "step_finish call/step",
    ]


def test_spans_outside_the_run_and_repeated_ones_make_no_step(
    spans: Spans, steps: SpanSteps
) -> None:
    spans.add("span")
    nameless = spans.events[-1]
    events = [
        nameless,
        spans.begin("a", None),
        spans.begin("b", "elsewhere"),
        spans.begin("c"),
        spans.begin("c"),
        spans.end("c"),
        spans.end("c"),
        spans.whole("run", None),
    ]

    assert made(steps, *events) == ["step_start step", "step_finish step"]


def test_a_span_that_was_no_step_ends_once(spans: Spans, steps: SpanSteps) -> None:
    events = [
        spans.begin("a", name="call"),
        spans.end("a", name="call"),
        spans.end("a", name="call", attributes={"late": 1}),
    ]

    assert made(steps, *events) == []


def test_spans_are_steps_down_to_the_64th_level(spans: Spans, steps: SpanSteps) -> None:
    names = ["run", *(f"s{number}" for number in range(66))]
    started = made(steps, *(spans.begin(name, above) for above, name in pairwise(names)))

    assert [one.count("/") for one in started] == [*range(64)]


def test_long_names_are_cut(spans: Spans, steps: SpanSteps) -> None:
    name = "step" + "x" * 400
    [start] = steps.feed(spans.begin("a", name=name, attributes={"by": name, "what": 7}))

    assert (start.step_id, start.step, start.agent) == (name[:200],) * 3
    assert start.action is None


def test_a_run_without_rules_has_steps_of_its_own() -> None:
    story, workflow = Story(), {"name": "w", "source": SPANS, "rules": as_json(RULES)}
    story.execution(span_id="run", workflow={"name": "w"})
    story.execution(span_id="run", workflow=workflow)
    story.execution(workflow=workflow)
    story.execution(span_id="run")

    found = [SpanSteps.of_run(event) for event in story.events]
    assert [one is not None for one in found] == [False, True, False, False]
    assert made(found[1] or SpanSteps(RULES, ""), Spans().begin("a")) == ["step_start step"]


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ({}, ("completed", None)),
        ({"status": [1, None]}, ("completed", None)),
        ({"status": ERROR}, ("completed", None)),
        ({"status": [ERROR]}, ("completed", None)),
        ({"status": [1, "x"], "attributes": {"error.type": "E"}}, ("completed", None)),
        ({"status": [ERROR, None]}, ("failed", ("Error", ""))),
        ({"status": [ERROR, "no"]}, ("failed", ("Error", "no"))),
        (
            {"status": [ERROR, "no"], "attributes": {"error.type": "E"}},
            ("failed", ("E", "no")),
        ),
        (
            {"status": [ERROR, "no"], "attributes": [], "events": "x"},
            ("failed", ("Error", "no")),
        ),
        (
            {"status": [ERROR, "no"], "attributes": {"error.type": "asyncio.CancelledError"}},
            ("cancelled", ("asyncio.CancelledError", "no")),
        ),
        (
            {"status": [ERROR, "no"], "attributes": {"error.type": "CancelledError.Other"}},
            ("failed", ("CancelledError.Other", "no")),
        ),
        (
            {
                "status": [ERROR, "no"],
                "attributes": {"error.type": "E"},
                "events": [
                    ["exception", 1, {"exception.type": "First"}],
                    ["exception", 2, {"exception.type": "Last"}],
                    ["note", 3, {"exception.type": "Other"}],
                    ["exception", 4],
                    "exception",
                ],
            },
            ("failed", ("Last", "no")),
        ),
    ],
)
def test_the_end_of_a_span_is_that_of_its_status(note: dict[str, Any], expected: Any) -> None:
    status, error = end_of(note)
    message = None if error is None else (error["type"], error["message"])

    assert (status, message) == expected
    assert error is None or error.keys() == {"type", "message", "stack"}
    assert error is None or error["stack"] is None


def test_a_failed_span_is_a_failed_step(spans: Spans, steps: SpanSteps) -> None:
    _, failed = steps.feed(spans.whole("a", status=[ERROR, "no"]))
    large_span = spans.whole("b")  # whose status is in its event: the rest is in a blob
    large_span.status = "failed"
    _, large = steps.feed(large_span)

    assert (failed.event_type, failed.status) == ("step_fail", "failed")
    assert failed.error == {"type": "Error", "message": "no", "stack": None}
    assert (large.event_type, large.status) == ("step_fail", "failed")
    assert large.error == {"type": "Error", "message": "", "stack": None}


# ---------------------------------------------------------------- usage


def calls(count: int) -> dict[str, Any]:
    return {
        "gen_ai.response.model": "large",
        "gen_ai.usage.input_tokens": 10 * count,
        "gen_ai.usage.output_tokens": count,
    }


ONE = Usage(1, 10, 1, {"large": ModelUsage(1, 10, 1)})


def test_what_was_used_belongs_to_the_innermost_step_once(spans: Spans, steps: SpanSteps) -> None:
    for one in (spans.begin("a"), spans.begin("b", "a", name="call")):
        made(steps, one)
    events = [
        spans.whole("c", "b", name="chat", attributes=calls(1)),
        spans.whole("d", "b", name="chat", attributes=calls(1)),
        spans.end("b", name="call", attributes=calls(2)),  # the sum of both
        spans.end("a", attributes={**calls(2), "gen_ai.tool.name": "search"}),
        spans.whole("e", name="chat", attributes=calls(1)),
        spans.whole("f", "elsewhere", name="chat", attributes=calls(1)),
    ]
    found = []
    for one in events:
        made(steps, one)
        found.append(steps.used(one))

    assert found[:3] == [(ONE, "step"), (ONE, "step"), (Usage(), "step")]
    assert (found[3][0].calls, found[3][1]) == (0, "step")
    assert found[4:] == [(ONE, None), (ONE, None)]
