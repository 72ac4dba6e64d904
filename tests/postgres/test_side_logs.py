"""Spans that other processes of a run write beside its log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from crashes import Forked
from databases import Database
from tapps_otel import JsonlSpanExporter, Run, configure, verify
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans

Machine = Callable[[str], Path]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_side_logs_are_in_the_store_and_come_along(database: Database, be_on: Machine) -> None:
    here = be_on("a")
    configure(spans=True)
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = JsonlSpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("library")

    def in_a_child() -> None:
        tracer.start_span("of the child").end()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trace, "_TRACER_PROVIDER", provider)
        with Run.open("flow", workflow_id="r") as run, run.begin("work"):
            tracer.start_span("of the parent").end()
            assert Forked(in_a_child).wait().code == 0
    exporter.shutdown()

    (path,) = Store(here).side_paths_of("r")
    assert database.log(path.stem) == path.read_bytes()
    there = be_on("b")
    assert verify("r").ok
    assert (there / path.name).read_bytes() == path.read_bytes()
    names = {found.span.name for found in RunSpans(Store(there), "r")}
    assert {"of the parent", "of the child"} <= names


def test_a_name_that_leads_out_of_the_folder_is_ignored(
    database: Database, be_on: Machine, tmp_path: Path
) -> None:
    be_on("a")
    with Run.open("flow", workflow_id="r"):
        pass
    database.ask("INSERT INTO tapps_otel.runs (name) VALUES ('r+/../../out')")
    database.ask(
        "INSERT INTO tapps_otel.lines (run, seq, bytes) SELECT o.id, seq, bytes "
        "FROM tapps_otel.lines, tapps_otel.runs o WHERE o.name = 'r+/../../out'"
    )
    be_on("b")

    assert verify("r").ok
    assert not [*tmp_path.glob("**/out*")]
