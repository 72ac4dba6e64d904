"""Runs that call runs, killed and resumed: their trace at a collector is whole, each span once."""

from __future__ import annotations

from otlp_collector import KILLED, Collector, Program, once
from tapps_otel import events

ORDERS = """
import os, signal
from pathlib import Path
from tapps_otel import step, workflow

@step
def charge(name: str) -> str:
    if name == "book" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return name

@workflow
def order(name: str) -> str:
    return charge(name)

@workflow
def day() -> list[str]:
    return [order.options(workflow_id=name)(name) for name in ("pen", "book")]

print(day.options(workflow_id="day")())
"""
RUNS = ("day", "pen", "book")


def test_a_resume_sends_what_was_cut_short_in_both_runs_once(
    collector: Collector, program: Program, refusing: str
) -> None:
    # The collector gets nothing before the kill, also nothing of the child run that completes.
    killed = program(ORDERS, OTEL_EXPORTER_OTLP_ENDPOINT=refusing)
    done = program(ORDERS, **collector.env())
    started = {
        one.span_id for run in RUNS for one in events(run)
        if one.event_type in {"workflow_start", "workflow_resume", "step_start"}
    }  # fmt: skip
    spans = once(collector.spans(len(started)))

    assert killed.code == KILLED
    assert (done.code, done.out) == (0, "['pen', 'book']\n")
    ids = {span.span_id for span in spans}
    assert ids == started
    assert len({span.trace_id for span in spans}) == 1
    assert {span.parent_span_id for span in spans} - {""} <= ids
    cut_short = [s for s in spans if s.attributes.get("error.type") == "interrupted"]
    assert sorted((str(s.attributes["tapps.workflow.id"]), s.name) for s in cut_short) == [
        ("book", "step charge"),
        ("book", "workflow order"),
        ("day", "step order"),
        ("day", "workflow day"),
    ]
