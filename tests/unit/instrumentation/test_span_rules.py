"""Rules over spans: runs that begin and end with a library's span, with steps made when read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

import tapps_otel
from crashes import die_at, killed
from group_syncs import Held
from independent_checker import check
from logs import event, start, write
from tapps_otel import (
    JsonlSpanProcessor,
    history,
    instrument,
    list_runs,
    step,
    timeline,
    uninstrument,
    workflow,
)
from tapps_otel.errors import RunConflictError
from tapps_otel.instrumentation import SpanMatch, SpanRules
from tapps_otel.log import files as log_files
from tapps_otel.log.reader import read
from tapps_otel.log.store import Store
from tapps_otel.otel.capture import roots
from tapps_otel.otel.mapping.owner import is_marker
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.past import span_rules
from tapps_otel.report.progress import Progress

LOGS = Path("logs")
SHOP = SpanRules(
    root=SpanMatch(name="order *"),
    steps=[
        SpanMatch(name="charge *"),
        SpanMatch(scope="mailer"),
        SpanMatch(attributes={"kind": "s*"}),
    ],
    run_id="order.id",
    agent="clerk",
    action=None,
)


class Program:
    """A program with a provider of its own, whose finished spans are kept."""

    def __init__(self, **options: Any) -> None:
        self.sent = InMemorySpanExporter()
        self.provider = TracerProvider(
            resource=Resource({"service.name": "t"}), shutdown_on_exit=False, **options
        )
        self.provider.add_span_processor(SimpleSpanProcessor(self.sent))
        trace._TRACER_PROVIDER = self.provider
        self.tracer = self.provider.get_tracer("shop", "1.2")
        self.mailer = self.provider.get_tracer("mailer")

    def given(self) -> list[ReadableSpan]:
        """What it sends, without markers."""
        return [span for span in self.sent.get_finished_spans() if not is_marker(span)]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(roots, "_roots", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(span_rules, "_known", dict(span_rules.PRESETS))
    tapps_otel.configure(log_dir=LOGS, durability="os")
    yield
    for path in LOGS.glob("*.jsonl"):
        check(path)


@pytest.fixture
def shop() -> Program:
    program = Program()
    assert instrument("shop", SHOP).ok
    return program


def order(program: Program, number: str, *, attributes: Any = None) -> None:
    """What the library does for one order; it may be killed in the middle."""
    about = {"order.id": number, **(attributes or {})}
    span = program.tracer.start_as_current_span
    with span("order book", attributes=about):
        with span("charge card", attributes={"clerk": "ann"}), span("POST"):
            die_at("POST")
        with program.mailer.start_as_current_span("send"):
            die_at("send")


def steps(run: str) -> dict[str, str]:
    return {one.step_id: one.status for one in history(run).steps}


def rebuilt(run: str) -> list[ReadableSpan]:
    found = RunSpans(Store(LOGS), run)
    spans = [one.span for one in found]
    assert found.problems == []
    assert len({span.context.span_id for span in spans}) == len(spans)
    return spans


def encoded(spans: Any) -> dict[int, bytes]:
    return {span.context.span_id: encode_spans([span]).SerializeToString() for span in spans}


def types(run: str) -> list[str]:
    return [one["event_type"] for one in check(LOGS / f"{run}.jsonl")]


# ---------------------------------------------------------------- a run


def test_a_span_opens_a_run_and_ends_it(shop: Program) -> None:
    order(shop, "o-1")
    run = history("o-1")

    assert (run.name, run.status) == ("order book", "completed")
    assert steps("o-1") == {"charge card": "completed", "send": "completed"}
    assert run.by_id["charge card"].agent == "ann"
    assert types("o-1")[0] == "workflow_start"
    assert types("o-1")[-1] == "workflow_end"
    assert not any("step" in one for one in types("o-1"))


def test_the_library_span_is_the_span_of_the_run(shop: Program) -> None:
    order(shop, "o-1")

    assert len(rebuilt("o-1")) == 4
    assert encoded(rebuilt("o-1")) == encoded(shop.given())
    assert history("o-1").trace_id == f"{shop.given()[0].context.trace_id:032x}"


def test_the_ends_of_steps_are_synced_and_those_of_other_spans_are_not(shop: Program) -> None:
    tapps_otel.configure(durability="commit")
    synced: list[int] = []
    files = Held()
    with (
        log_files.use(files),
        shop.tracer.start_as_current_span("order book", attributes={"order.id": "7"}),
    ):
        for kind in ("note", "stock", "note", "stock", "shelf"):
            before = len(files.syncers)
            with shop.tracer.start_as_current_span("look", attributes={"kind": kind}):
                pass
            synced.append(len(files.syncers) - before)

    assert synced == [0, 1, 0, 1, 1]


def test_what_was_done_when_the_process_was_killed_is_known(shop: Program) -> None:
    killed(lambda: order(shop, "o-1"), at="POST")
    run = timeline("o-1")
    spans = {span.name: span for span in rebuilt("o-1")}

    assert run.status == "interrupted"
    assert [(one.step_id, one.status) for one in run.steps] == [("charge card", "interrupted")]
    assert set(spans) == {"order book", "charge card", "POST"}
    assert {span.status.status_code for span in spans.values()} == {StatusCode.ERROR}


def test_a_run_of_the_same_id_is_numbered(shop: Program) -> None:
    order(shop, "o-1")
    order(shop, "o-1")

    assert {one.workflow_id for one in list_runs()} == {"o-1", "o-1.2"}


def test_the_turns_of_a_thread_are_runs() -> None:
    program = Program()
    instrument("shop", SpanRules(root=SpanMatch("order *"), thread="customer"))
    for number in ("1", "2"):
        order(program, number, attributes={"customer": "c-1"})

    assert {one.workflow_id for one in list_runs()} == {"c-1", "c-1.2"}
    assert history("c-1.2").workflow["thread"] == "c-1"


def test_without_an_id_one_is_made_from_the_name() -> None:
    program = Program()
    instrument("shop", SpanRules(root=SpanMatch("order *"), run_name="title"))
    order(program, "1", attributes={"title": "the-order"})

    (run,) = list_runs()
    assert run.workflow_id.startswith("the-order-")


@pytest.mark.parametrize(
    "error", [ValueError("no card"), asyncio.CancelledError()], ids=["failed", "cancelled"]
)
def test_errors_of_spans_are_those_of_steps_and_of_the_run(
    shop: Program, error: BaseException, request: pytest.FixtureRequest
) -> None:
    span = shop.tracer.start_as_current_span
    with span("order x", attributes={"order.id": "o"}) as top, span("charge y") as charge:
        for one in (charge, top):
            one.record_exception(error)
            one.set_status(StatusCode.ERROR, str(error))
    expected = request.node.callspec.id

    assert history("o").status == expected
    assert steps("o") == {"charge y": expected}
    assert str(error) in (history("o").by_id["charge y"].last.error or {})["message"]


def test_a_repeated_step_is_a_new_one(shop: Program) -> None:
    with shop.tracer.start_as_current_span("order x", attributes={"order.id": "o"}):
        for _ in range(3):
            with shop.tracer.start_as_current_span("charge y"):
                pass

    assert list(steps("o")) == ["charge y", "charge y#2", "charge y#3"]


def test_roots_side_by_side_in_one_trace_keep_apart(shop: Program) -> None:
    with shop.tracer.start_as_current_span("request"):
        first = shop.tracer.start_span("order x", attributes={"order.id": "x"})
        second = shop.tracer.start_span("order y", attributes={"order.id": "y"})
        for span, name in ((first, "charge x"), (second, "charge y"), (first, "charge z")):
            shop.tracer.start_span(name, trace.set_span_in_context(span)).end()
        second.end()
        shop.tracer.start_span("charge w", trace.set_span_in_context(first)).end()
        first.end()

    assert set(steps("x")) == {"charge x", "charge z", "charge w"}
    assert set(steps("y")) == {"charge y"}


def test_runs_in_threads_keep_apart(shop: Program) -> None:
    threads = [threading.Thread(target=order, args=(shop, f"o-{n}")) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    for n in range(8):
        assert steps(f"o-{n}") == {"charge card": "completed", "send": "completed"}


def test_a_root_inside_a_run_is_part_of_it(shop: Program) -> None:
    with shop.tracer.start_as_current_span("order outer", attributes={"order.id": "o-0"}):
        order(shop, "o-1")

    assert [one.workflow_id for one in list_runs()] == ["o-0"]
    assert "charge card" in steps("o-0")


def test_a_root_inside_a_workflow_opens_no_run(shop: Program) -> None:
    @step
    def sell() -> None:
        order(shop, "o-1")

    @workflow
    def flow() -> None:
        sell()

    flow.options(workflow_id="w")()

    assert [one.workflow_id for one in list_runs()] == ["w"]
    assert types("w").count("span") == 4


def test_a_workflow_inside_a_run_has_a_log_of_its_own(shop: Program) -> None:
    @step
    def work() -> None:
        with shop.tracer.start_as_current_span("charge inner"):
            pass

    @workflow
    def flow() -> None:
        work()

    with shop.tracer.start_as_current_span("order x", attributes={"order.id": "o"}):
        flow.options(workflow_id="w")()
        with shop.tracer.start_as_current_span("charge outer"):
            pass

    assert list(steps("o")) == ["charge outer"]
    assert list(steps("w")) == ["work"]
    assert history("w").trace_id == history("o").trace_id


# ---------------------------------------------------------------- steps are made when a log is read


def test_what_a_span_has_at_its_end_counts(shop: Program) -> None:
    span = shop.tracer.start_as_current_span
    with span("order x", attributes={"order.id": "o"}), span("late") as late:
        late.set_attribute("kind", "step")
        assert steps("o") == {}

    assert steps("o") == {"late": "completed"}
    assert history("o").by_id["late"].last.duration_ns


def test_rules_can_change_after_a_run(shop: Program) -> None:
    order(shop, "o-1")
    uninstrument("shop")
    instrument("shop", SpanRules(root=SpanMatch("order *"), steps=SpanMatch("POST")))

    assert list(steps("o-1")) == ["POST"]


def test_a_process_without_the_rules_reads_by_those_in_the_log(
    shop: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(shop, "o-1")
    monkeypatch.setattr(span_rules, "_known", {})

    assert list(steps("o-1")) == ["charge card", "send"]
    assert history("o-1").by_id["charge card"].agent == "ann"


def test_usage_belongs_to_the_innermost_step() -> None:
    program = Program()
    instrument("genai")
    named = {"agent": "invoke_agent", "chat": "chat", "tool": "execute_tool"}
    used = {"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3}

    def spans(*names: str) -> None:
        if not names:
            return
        about = {"gen_ai.operation.name": named[names[0]], "gen_ai.conversation.id": "c"}
        with program.tracer.start_as_current_span(names[0], attributes=about) as span:
            spans(*names[1:])
            if names[0] != "tool":
                span.set_attributes(used)

    spans("agent", "tool", "agent", "chat")
    run = history("c")

    assert (run.usage.calls, run.usage.input_tokens) == (1, 7)
    assert [(one.step_id, one.usage.input_tokens) for one in run.steps] == [
        ("tool", 0),
        ("tool/agent", 0),
        ("tool/agent/chat", 7),
    ]


def test_a_large_span_keeps_its_status(shop: Program) -> None:
    span = shop.tracer.start_as_current_span
    with span("order x", attributes={"order.id": "o"}), span("charge y") as charge:
        charge.set_attribute("prompt", "x" * 100_000)
        charge.set_status(StatusCode.ERROR, "no")

    assert steps("o") == {"charge y": "failed"}
    assert encoded(rebuilt("o")) == encoded(shop.given())


def test_progress_shows_steps_of_spans(shop: Program) -> None:
    order(shop, "o-1")
    progress = Progress()
    said = [line.text for one in read(LOGS / "o-1.jsonl", "o-1") if (line := progress.feed(one))]

    assert [line.split("  ")[0] for line in said] == ["✓ charge card", "✓ send"]
    assert (progress.status, progress.finished) == ("completed", 2)


def test_a_list_claims_no_number_of_steps(shop: Program) -> None:
    order(shop, "o-1")

    (run,) = list_runs()
    assert run.steps is None


# ---------------------------------------------------------------- no resume is promised


def test_such_a_run_cannot_be_resumed(shop: Program) -> None:
    killed(lambda: order(shop, "o-1"), at="send")

    with pytest.raises(RunConflictError, match="cannot be resumed: it was only observed"):
        tapps_otel.resume("o-1")
    assert history("o-1").workflow["resumable"] is False


def test_show_promises_no_resume(shop: Program, capsys: pytest.CaptureFixture[str]) -> None:
    from tapps_otel.cli import main

    killed(lambda: order(shop, "o-1"), at="send")
    with pytest.raises(SystemExit):
        main(["show", "o-1", "--log-dir", str(LOGS)])
    shown = capsys.readouterr().out

    assert "not possible: the run was only observed" in shown
    assert "tapps-otel resume" not in shown
    assert "continues" not in shown


# ---------------------------------------------------------------- what must do no harm


def test_an_unsampled_run_leaves_no_log() -> None:
    program = Program(sampler=ALWAYS_OFF)
    instrument("shop", SHOP)
    order(program, "o-1")

    assert list(list_runs()) == []


def test_taken_back_while_a_run_is_in_progress(shop: Program) -> None:
    with shop.tracer.start_as_current_span("order x", attributes={"order.id": "o"}):
        uninstrument("shop")
        with shop.tracer.start_as_current_span("charge y"):
            pass
    order(shop, "o-2")

    assert history("o").status == "completed"
    assert steps("o") == {"charge y": "completed"}
    assert [one.workflow_id for one in list_runs()] == ["o"]


def test_instrumented_twice_one_run_is_opened(shop: Program) -> None:
    instrument("shop", SHOP)
    order(shop, "o-1")

    assert [one.workflow_id for one in list_runs()] == ["o-1"]
    assert types("o-1").count("span_start") == 4


def test_a_program_that_captures_spans_itself_has_each_once() -> None:
    program = Program()
    program.provider.add_span_processor(JsonlSpanProcessor())
    instrument("shop", SHOP)
    order(program, "o-1")

    assert [one.workflow_id for one in list_runs()] == ["o-1"]
    assert (types("o-1").count("span_start"), types("o-1").count("span")) == (4, 4)


def test_a_new_run_may_begin_below_a_root_that_has_ended(shop: Program) -> None:
    first = shop.tracer.start_span("order x", attributes={"order.id": "x"})
    first.end()
    within = trace.set_span_in_context(first)
    shop.tracer.start_span("order y", within, attributes={"order.id": "y"}).end()

    assert {one.workflow_id: one.status for one in list_runs()} == dict.fromkeys("xy", "completed")


def test_a_provider_that_is_not_the_sdks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    report = instrument("shop", SHOP)

    assert not report.ok
    assert "NoOpTracerProvider is not a tracer provider of the SDK" in str(report)


def test_a_log_that_cannot_be_opened_harms_nothing(
    shop: Program, caplog: pytest.LogCaptureFixture
) -> None:
    LOGS.write_text("a file, not a folder")
    order(shop, "o-1")

    assert len(shop.given()) == 4
    assert "a run is not logged" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpanRules(root=[]), "without a root"),
        (lambda: SpanRules(root="order *"), "must be a SpanMatch"),  # type: ignore[arg-type]
        (lambda: SpanRules(root=SpanMatch(), steps=[1]), "must be a SpanMatch"),  # type: ignore[list-item]
        (lambda: SpanRules(root=[SpanMatch()] * 101), "of at most 100"),
        (lambda: SpanMatch("x" * 1001), "at most 1000"),
        (lambda: SpanMatch(attributes={"a": 1}), "must be a text"),  # type: ignore[dict-item]
        (lambda: SpanRules(SpanMatch(), agent=[]), "must be the name"),  # type: ignore[arg-type]
        (lambda: SpanMatch(attributes=["a"]), "must be a dictionary"),  # type: ignore[arg-type]
    ],
    ids=["none", "text", "number", "many", "long", "value", "agent", "list"],
)
def test_bad_rules_are_refused(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


ROOT, INNER, OTHER = "1" * 16, "2" * 16, "3" * 16


@pytest.mark.parametrize(
    "rules",
    [
        None,
        1,
        {},
        {"root": 1},
        {"root": [{"name": 1}]},
        {"root": [{}], "steps": [{}], "bad": 1},
        {"root": [{}], "agent": []},
    ],
    ids=str,
)
def test_a_log_with_bad_rules_is_read(rules: Any) -> None:
    about = {"name": "f", "executor": "x", "source": "spans", "rules": rules}
    span = {"span_id": INNER, "parent_span_id": ROOT, "name": "a"}
    LOGS.mkdir()
    write(
        LOGS / "r.jsonl",
        [start("r", workflow=about, span_id=ROOT), event("span_start", workflow_id="r", **span)],
    )

    assert history("r").steps == []


def test_spans_that_come_twice_or_in_a_circle_make_one_step_each(shop: Program) -> None:
    about = {"name": "f", "executor": "shop", "source": "spans", "rules": {}}
    circle = [
        {"span_id": INNER, "parent_span_id": OTHER, "name": "charge b"},
        {"span_id": OTHER, "parent_span_id": INNER, "name": "charge c"},
    ]
    inside: dict[str, Any] = {
        "span_id": "4" * 16,
        "parent_span_id": ROOT,
        "name": "charge a",
        "otel": {"status": 1, "events": [1], "scope": 3},
    }
    lines = [start("r", workflow=about, span_id=ROOT)]
    for one in (inside, inside, *circle):
        fields: dict[str, Any] = {"workflow_id": "r", **one}
        lines += [event("span_start", **fields), event("span", duration_ns=5, **fields)]
    LOGS.mkdir()
    write(LOGS / "r.jsonl", lines)

    assert steps("r") == {"charge a": "completed"}
