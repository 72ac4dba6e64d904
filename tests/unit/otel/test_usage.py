"""What captured spans of libraries used: in the history, in reports, in a metric."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

import tapps_otel
from commands import Cli
from tapps_otel import JsonlSpanExporter, JsonlSpanProcessor, history, step, timeline, workflow
from tapps_otel.otel.capture.tokens import token_counter
from tapps_otel.otel.metrics import instruments
from tapps_otel.otel.run_registry import KnownRun
from tapps_otel.past.usage import ATTRIBUTES, ModelUsage, Usage, usage_of

CHAT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "large",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}
USED = "200 + 20 tokens in 2 model calls (large 2); 1 tool call (search 1)"


class Program:
    """A program whose provider captures the spans of libraries as most do: in batches."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(JsonlSpanExporter()))
        self.tracer = self.provider.get_tracer("library")

    def call(self, **attributes: Any) -> None:
        self.tracer.start_span("chat", attributes={**CHAT, **attributes}).end()

    def agent(self) -> None:
        """An agent that repeats the sums of its two model calls."""
        sums = {**CHAT, "gen_ai.usage.input_tokens": 200, "gen_ai.usage.output_tokens": 20}
        with self.tracer.start_as_current_span("invoke_agent", attributes=sums):
            self.call()
            self.tracer.start_span("tool", attributes={"gen_ai.tool.name": "search"}).end()
            self.call()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    tapps_otel.configure(log_dir=tmp_path / "logs", durability="os")
    made = Program()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made.provider)
    yield made
    made.provider.shutdown()


@pytest.fixture
def written(program: Program) -> Program:
    """The run `r`: its step `write` asks an agent, and the workflow itself a small model."""

    @step
    def write() -> int:
        program.agent()
        return 1

    @workflow
    def flow() -> int:
        program.call(**{"gen_ai.response.model": "small"})
        return write()

    flow.options(workflow_id="r")()
    assert program.provider.force_flush()
    return program


def large(calls: int) -> ModelUsage:
    return ModelUsage(calls, 100 * calls, 10 * calls)


# ---------------------------------------------------------------- the history


@pytest.mark.usefixtures("written")
def test_a_history_tells_what_its_steps_and_the_run_used() -> None:
    found = history("r")

    write = found.by_id["write"]
    assert write.usage == Usage(2, 200, 20, {"large": large(2)}, {"search": 1})
    assert write.last.usage == write.usage
    assert found.usage.models == {"large": large(2), "small": large(1)}
    assert (found.usage.calls, found.usage.input_tokens, found.usage.output_tokens) == (3, 300, 30)
    assert timeline("r").usage == found.usage
    assert timeline("r").steps[0].usage == write.usage


def test_spans_in_side_logs_count(program: Program) -> None:
    @step
    def write() -> None:
        program.call()

    @workflow
    def flow() -> None:
        write()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        flow.options(workflow_id="r")()
    assert program.provider.force_flush()

    assert [path.name.partition("+")[0] for path in Path(_folder()).glob("*+*.jsonl")] == ["r"]
    assert history("r").by_id["write"].usage == Usage(1, 100, 10, {"large": large(1)})
    assert timeline("r").usage.calls == 1


def test_a_prompt_that_is_kept_in_a_blob_hides_no_tokens(program: Program) -> None:
    @workflow
    def flow() -> None:
        program.call(**{"gen_ai.input.messages": "say this " * 100_000})

    flow.options(workflow_id="r")()
    assert program.provider.force_flush()

    assert len([*(Path(_folder()) / "r.blobs").iterdir()]) == 1
    assert history("r").usage == Usage(1, 100, 10, {"large": large(1)})
    assert tapps_otel.verify("r").ok


def _folder() -> str:
    return str(tapps_otel.configure().log_dir)


# ---------------------------------------------------------------- reports


@pytest.mark.usefixtures("written")
def test_show_tells_it_of_the_run_and_of_each_step(cli: Cli) -> None:
    folder = ("--log-dir", _folder())
    run = cli("show", "r", *folder).out
    one = cli("show", "r", "write", *folder).out

    assert "used      300 + 30 tokens in 3 model calls (large 2, small 1)" in run
    assert "✓ write" in run
    assert "200 + 20 tokens" in next(line for line in run.splitlines() if "✓ write" in line)
    assert f"used      {USED}\n" in one


@pytest.mark.usefixtures("written")
def test_programs_get_it_as_json(cli: Cli) -> None:
    shown = json.loads(cli("show", "r", "--json", "--log-dir", _folder()).out)
    made = json.loads(cli("timeline", "r", "--json", "--log-dir", _folder()).out)

    expected = {
        "calls": 2,
        "input_tokens": 200,
        "output_tokens": 20,
        "models": {"large": {"calls": 2, "input_tokens": 200, "output_tokens": 20}},
        "tools": {"search": 1},
    }
    (write,) = shown["steps"]
    assert write["usage"] == write["attempts"][0]["usage"] == expected
    assert made["steps"][0]["attempts"][0]["usage"] == expected
    assert shown["usage"] == made["usage"]
    assert shown["usage"]["input_tokens"] == 300


@pytest.mark.usefixtures("written")
def test_a_timeline_tells_it_in_every_form(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    folder = ("--log-dir", _folder())
    drawn = cli("timeline", "r", *folder).out
    table = cli("timeline", "r", "--markdown", *folder).out
    assert cli("timeline", "r", "--html", str(page), *folder).code == 0

    sums = "300 + 30 tokens in 3 model calls (large 2, small 1); 1 tool call (search 1)"
    assert f"used      {sums}" in drawn
    assert "200 + 20 tokens" in next(line for line in drawn.splitlines() if "✓ write" in line)
    assert "- **used**: 300 + 30 tokens in 3 model calls" in table
    assert "200 + 20 tokens" in next(line for line in table.splitlines() if "| write" in line)
    assert USED in page.read_text()


# ---------------------------------------------------------------- the metric


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """What the metrics of this process are."""
    made = InMemoryMetricReader()
    meters = MeterProvider([made], shutdown_on_exit=False)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", meters)
    monkeypatch.setattr(instruments, "_made", None)
    yield made
    meters.shutdown()


def tokens_in(reader: InMemoryMetricReader) -> list[tuple[dict[str, Any], int]]:
    data = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]
    return [
        (point["attributes"], point["value"])
        for of_scope in data["resource_metrics"][0]["scope_metrics"]
        for metric in of_scope["metrics"]
        if metric["name"] == "tapps.gen_ai.tokens"
        for point in metric["data"]["data_points"]
    ]


def test_a_metric_counts_the_tokens(program: Program, reader: InMemoryMetricReader) -> None:
    @step
    def write() -> None:
        program.agent()

    @workflow
    def flow() -> None:
        write()

    flow.options(workflow_id="r")()
    program.call(**{"gen_ai.request.model": "of no run"})
    assert program.provider.force_flush()

    about = {"tapps.workflow.name": "flow", "gen_ai.response.model": "large"}
    assert tokens_in(reader) == [
        ({**about, "gen_ai.token.type": "input"}, 200),
        ({**about, "gen_ai.token.type": "output"}, 20),
    ]


@pytest.mark.parametrize("with_processor", [True, False])
def test_the_metric_leaves_out_an_agent_that_encloses_the_whole_run(
    program: Program, reader: InMemoryMetricReader, *, with_processor: bool
) -> None:
    """It ends after the run: the exporter captures it, and the processor the call inside."""
    if with_processor:
        program.provider.add_span_processor(JsonlSpanProcessor())

    @workflow
    def flow() -> None:
        program.call()
        assert program.provider.force_flush()

    with program.tracer.start_as_current_span("invoke_agent", attributes=CHAT):
        flow.options(workflow_id="r")()
    assert program.provider.force_flush()

    assert [tokens for _, tokens in tokens_in(reader)] == [100, 10]


def test_the_metric_leaves_out_an_agent_that_ends_after_its_run(
    program: Program, reader: InMemoryMetricReader
) -> None:
    """The processor captures the call inside, in the run, and the exporter the agent."""
    program.provider.add_span_processor(JsonlSpanProcessor())
    agent = []

    @workflow
    def flow() -> None:
        agent.append(program.tracer.start_span("invoke_agent", attributes=CHAT))
        with trace.use_span(agent[0]):
            program.call()

    flow.options(workflow_id="r")()
    agent[0].end()
    assert program.provider.force_flush()

    assert [tokens for _, tokens in tokens_in(reader)] == [100, 10]


def test_spans_that_end_while_tokens_are_counted_are_counted_too(
    program: Program, reader: InMemoryMetricReader
) -> None:
    """As by a garbage collection: an abandoned stream's finalizer ends its span."""
    run = KnownRun("r", Path(_folder()), 1, 0)
    counter = token_counter()

    class Collected(dict[str, Any]):
        """Attributes at whose reading another span ends, in the same thread."""

        def __iter__(self) -> Iterator[str]:
            counter.count(run, [inner])
            return super().__iter__()

    def span(attributes: dict[str, Any]) -> ReadableSpan:
        made = program.tracer.start_span("chat")
        made.end()
        return ReadableSpan("chat", made.get_span_context(), attributes=attributes)

    inner = span(CHAT)
    counter.count(run, [span(Collected(CHAT))])

    assert [tokens for _, tokens in tokens_in(reader)] == [200, 20]


# ---------------------------------------------------------------- the conventions themselves


def test_the_names_are_those_of_opentelemetrys_conventions() -> None:
    given = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    named = {name for names in ATTRIBUTES.values() for name in names if name.startswith("gen_ai.")}

    assert named <= given


def test_the_names_are_those_of_openinference() -> None:
    conventions = pytest.importorskip("openinference.semconv.trace")
    names = conventions.SpanAttributes
    attributes = {
        names.LLM_MODEL_NAME: "large",
        names.LLM_TOKEN_COUNT_PROMPT: 100,
        names.LLM_TOKEN_COUNT_COMPLETION: 10,
        names.TOOL_NAME: "search",
    }

    assert usage_of(attributes) == Usage(1, 100, 10, {"large": large(1)}, {"search": 1})
