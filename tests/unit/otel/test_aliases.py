"""Aliases: other conventions' names on spans, chosen by a setting and noted in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from tapps_otel import Run, configure, events, settings, skip, step, workflow
from tapps_otel.errors import SettingsError
from tapps_otel.log.store import Store
from tapps_otel.otel.live import spans
from tapps_otel.otel.mapping.aliases import aliases_of
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.settings_types import Alias

ALL: tuple[Alias, ...] = ("gen_ai/0.1", "gen_ai/1.41", "cicd/1.44")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What the program's own tracer provider exports."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "t"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(spans, "_made", None)
    trace.set_tracer_provider(provider)
    configure(announce="off")
    yield exporter
    provider.shutdown()


@step(agent="writer", action="write")
def draft(n: int) -> int:
    return n


@step
def check(n: int) -> int:
    if n < 0:
        raise ValueError(n)
    if n == 0:
        skip("nothing to check", 0)
    return n


@workflow
def article(n: int) -> int:
    return draft(n) + check(n)


def aliases(span: ReadableSpan) -> dict[str, Any]:
    return {
        name: value
        for name, value in (span.attributes or {}).items()
        if name.startswith(("gen_ai.", "cicd.", "artifact."))
    }


def by_name(spans: Any) -> dict[str, dict[str, Any]]:
    return {span.name: aliases(span) for span in spans}


def rebuilt(run: str = "r1") -> list[ReadableSpan]:
    return [found.span for found in RunSpans(Store(Path(settings.current().log_dir)), run)]


def encoded(spans: Any) -> dict[int, bytes]:
    return {span.context.span_id: encode_spans([span]).SerializeToString() for span in spans}


def article_run(n: int = 1) -> None:
    article.options(workflow_id="r1")(n)


# ---------------------------------------------------------------- names


def test_without_the_setting_there_are_no_aliases(sent: InMemorySpanExporter) -> None:
    article_run()

    assert not any(aliases(span) for span in sent.get_finished_spans())
    assert not any("aliases" in (event.otel or {}) for event in events("r1"))


@pytest.mark.parametrize(
    ("version", "of_workflow"),
    [
        ("gen_ai/0.1", {"gen_ai.agent.name": "article"}),
        ("gen_ai/1.41", {"gen_ai.workflow.name": "article"}),
    ],
)
def test_gen_ai_has_the_names_of_its_version(
    sent: InMemorySpanExporter, version: Alias, of_workflow: dict[str, str]
) -> None:
    configure(aliases=[version])
    article_run()

    assert by_name(sent.get_finished_spans()) == {
        "workflow article": {"gen_ai.operation.name": "invoke_workflow", **of_workflow},
        "step draft": {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "writer"},
        "step check": {},
    }


def test_cicd_names_runs_and_tasks(sent: InMemorySpanExporter) -> None:
    configure(aliases="cicd/1.44")
    article_run()
    run = {"cicd.pipeline.name": "article", "cicd.pipeline.run.id": "r1"}

    assert by_name(sent.get_finished_spans()) == {
        "workflow article": {**run, "cicd.pipeline.result": "success"},
        "step draft": {
            **run,
            "cicd.pipeline.task.name": "draft",
            "cicd.pipeline.task.run.id": "draft",
            "cicd.pipeline.task.run.result": "success",
        },
        "step check": {
            **run,
            "cicd.pipeline.task.name": "check",
            "cicd.pipeline.task.run.id": "check",
            "cicd.pipeline.task.run.result": "success",
        },
    }


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ValueError("no"), "failure"),
        (GeneratorExit(), "cancellation"),
        (KeyboardInterrupt(), "error"),
    ],
)
def test_cicd_has_a_result_for_each_final_status(
    sent: InMemorySpanExporter, error: BaseException, result: str
) -> None:
    configure(aliases="cicd/1.44")
    with pytest.raises(type(error)), Run.open("build", workflow_id="b1") as run:
        run.call("compile", raising(error))
    found = by_name(sent.get_finished_spans())

    assert found["workflow build"]["cicd.pipeline.result"] == result
    assert found["step compile"]["cicd.pipeline.task.run.result"] == result


def test_skips_and_artifacts_have_aliases(sent: InMemorySpanExporter) -> None:
    configure(aliases="cicd/1.44")
    Path("page.md").write_text("text", "utf-8")
    with Run.open("build", workflow_id="b1") as run:
        run.begin("write").finish(artifacts=["page.md"])
        run.begin("check").skip("no change")
    write, check, _ = sent.get_finished_spans()
    (artifact,) = [event for event in write.events if event.name == "tapps.artifact"]
    held = artifact.attributes or {}

    assert aliases(check)["cicd.pipeline.task.run.result"] == "skip"
    assert held["artifact.filename"] == held["tapps.artifact.name"]
    assert held["artifact.hash"] == held["tapps.artifact.sha256"]


# ---------------------------------------------------------------- rebuilt from the log


@pytest.mark.parametrize("n", [1, 0, -1])
@pytest.mark.parametrize("chosen", [(one,) for one in ALL] + [ALL])
def test_rebuilt_spans_have_the_aliases_of_the_log_not_of_the_reader(
    sent: InMemorySpanExporter, chosen: tuple[Alias, ...], n: int
) -> None:
    configure(aliases=chosen)
    try:
        article_run(n)
    except ValueError:
        configure(aliases=chosen[:1])
        with pytest.raises(ValueError):
            article.resume("r1")
    configure(aliases=())
    live_ones = sent.get_finished_spans()

    assert all(aliases(span) for span in live_ones if span.name == "workflow article")
    assert encoded(rebuilt()) == encoded(live_ones)


def test_a_users_attribute_wins_over_an_alias(sent: InMemorySpanExporter) -> None:
    configure(aliases=ALL)
    with Run.open("build", workflow_id="r1") as run, run.begin("ask", agent="writer"):
        trace.get_current_span().set_attribute("gen_ai.agent.name", "the real one")

    assert by_name(sent.get_finished_spans())["step ask"]["gen_ai.agent.name"] == "the real one"
    assert encoded(rebuilt()) == encoded(sent.get_finished_spans())


@pytest.mark.parametrize("spans", [True, False])
def test_spans_without_an_sdk_have_aliases_too(
    spans: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    configure(aliases=ALL, spans=spans)
    with pytest.raises(ValueError):
        article_run(-1)
    with pytest.raises(ValueError):
        article.resume("r1")
    configure(aliases=())
    made = rebuilt()
    run = {"cicd.pipeline.name": "article", "cicd.pipeline.run.id": "r1"}

    assert [span.name for span in made].count("workflow article") == 2
    for span in made:
        assert run.items() <= aliases(span).items()


def test_an_interrupted_run_is_an_error_of_the_pipeline() -> None:
    configure(aliases=ALL)
    run = Run.open("build", workflow_id="r1")
    run.begin("compile")
    run.close()  # nothing is ended: as when the process dies
    found = by_name(rebuilt())

    assert found["workflow build"]["cicd.pipeline.result"] == "error"
    assert found["step compile"]["cicd.pipeline.task.run.result"] == "error"


def test_unknown_aliases_in_a_log_are_ignored() -> None:
    for odd in (["gen_ai/9.9", 7, None], "cicd/1.44", {"cicd/1.44": 1}, 5, None):
        assert aliases_of({"aliases": odd}) == ()
    assert aliases_of({"aliases": ["new/2", "cicd/1.44"]}) == ("cicd/1.44",)


# ---------------------------------------------------------------- the setting


def test_the_environment_variable_separates_aliases_by_commas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAPPS_OTEL_ALIASES", "gen_ai/1.41, cicd/1.44")

    assert settings.current().aliases == ("gen_ai/1.41", "cicd/1.44")


@pytest.mark.parametrize("given", ["gen_ai", "cicd/1.0", ["gen_ai/0.1", "x"]])
def test_an_unknown_alias_is_refused_with_the_known_ones(given: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        configure(aliases=given)
    said = str(caught.value)

    assert "TAPPS_OTEL_ALIASES in the environment" in said
    assert all(known in said for known in ALL)
