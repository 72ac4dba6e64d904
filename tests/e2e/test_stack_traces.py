"""Runs as Jaeger shows them: through the real collector into the real Jaeger, and back out."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

import programs
import tapps_otel
from capabilities import need
from commands import child, command, environment
from stack import Span, Stack, stack_up, wait_for

pytestmark = pytest.mark.stack

FLOW = """
import os, signal, time
from pathlib import Path
from tapps_otel import Backoff, annotate, current_run, step, workflow

@step
def fetch(n: int) -> list[int]:
    return list(range(n))

@step(agent="writer", action="write")
def write(n: int) -> int:
    if os.environ.get("KILL_AT") == str(n):
        os.kill(os.getpid(), signal.SIGKILL)
    annotate("exact", count=9007199254740993)
    return polish(n)

@step(retries=1, backoff=Backoff(0.01, 1, 0.01))
def polish(n: int) -> int:
    tried = Path(f"tried-{current_run().workflow_id}")
    if n == 1 and not tried.exists():
        tried.touch()
        raise ValueError("not yet")
    return -n

@workflow
def report(n: int = 3) -> list[int]:
    return [write(part) for part in fetch(n)]

@workflow
def waiting() -> int:
    fetch(1)
    Path("waiting").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return 1
"""
STARTS = {"workflow_start", "workflow_resume", "step_start"}
NAME = "flow"  # of the service


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    """A run id that no other test uses, and the file of workflows."""
    Path("flow.py").write_text(FLOW, "utf-8")
    return f"r-{uuid.uuid4().hex[:8]}"


def started(run_id: str) -> dict[str, str]:
    """The expected spans, one for each start in the log: names by span id."""
    return {
        str(e.span_id): f"workflow {e.workflow['name']}" if e.workflow else f"step {e.step}"
        for e in tapps_otel.events(run_id)
        if e.event_type in STARTS
    }


def trace_id(run_id: str) -> str:
    return str(next(iter(tapps_otel.events(run_id))).trace_id)


def arrived(stack: Stack, run_id: str) -> list[Span]:
    """Wait until Jaeger has a span for each start of the run, and return its spans."""
    return stack.spans(trace_id(run_id), started(run_id))


def named(stack: Stack, run_id: str, name: str) -> Span | None:
    """The run's first span of this name in Jaeger."""
    return next((one for one in stack.spans(trace_id(run_id)) if one.name == name), None)


def assert_whole(spans: Sequence[Span], run_id: str) -> None:
    """Every start of the log has one span, all are connected, and Jaeger has no warnings."""
    own = {span.span_id: span.name for span in spans if "tapps.marker" not in span.tags}
    markers = [span for span in spans if "tapps.marker" in span.tags]

    assert own == started(run_id)
    assert len(own) + len(markers) == len(spans)
    assert len([span for span in spans if span.parent is None]) == 1
    assert {span.parent for span in spans} - {None} <= set(own)
    assert [span.warnings for span in spans if span.warnings] == []


def seqs(spans: Iterable[Span]) -> list[int]:
    """The ``seq`` of all span events, each as often as it occurs."""
    return sorted(
        event["tapps.seq"]
        for span in spans
        for event in span.events
        if event["event"] != "exception"  # a second event for a failure
    )


# ---------------------------------------------------------------- whole traces


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_run_is_one_whole_trace_in_jaeger(
    shared_stack: Stack, run_id: str, protocol: str
) -> None:
    done = child("run", "flow.py:report", "--id", run_id, **shared_stack.env(protocol))
    spans = arrived(shared_stack, run_id)
    events = list(tapps_otel.events(run_id))
    (run,) = [span for span in spans if span.parent is None]

    assert (done.code, done.out) == (0, "[0,-1,-2]\n")
    assert_whole(spans, run_id)
    assert seqs(spans) == [e.seq for e in events]
    assert run.tags["tapps.workflow.id"] == run_id
    assert run.tags["tapps.log.sha"] == events[-1].sha
    assert {span.tags.get("error.type") for span in spans} == {None, "ValueError"}


def test_integers_and_times_are_kept_exactly(shared_stack: Stack, run_id: str) -> None:
    child("run", "flow.py:report", "--id", run_id, **shared_stack.env())
    arrived(shared_stack, run_id)
    begun = {e.span_id: e.time_ns for e in tapps_otel.events(run_id) if e.event_type in STARTS}
    raw = [s for s in shared_stack.raw_spans(trace_id(run_id)) if not s["name"].endswith("started")]
    counts = [
        attribute["value"]
        for span in raw
        for event in span["events"]
        for attribute in event["attributes"]
        if attribute["key"] == "count"
    ]

    assert {span["spanId"]: int(span["startTimeUnixNano"]) for span in raw} == begun
    assert counts == [{"intValue": "9007199254740993"}] * 3


def test_a_killed_run_is_whole_after_send(shared_stack: Stack, run_id: str) -> None:
    killed = child("run", "flow.py:report", "--id", run_id, KILL_AT="1", **shared_stack.env())
    sent = child("send", run_id, **shared_stack.env())
    spans = arrived(shared_stack, run_id)
    cut = {span.name for span in spans if span.tags.get("tapps.status") == "interrupted"}

    assert (killed.code, sent.code) == (-9, 0)
    assert_whole(spans, run_id)
    assert cut == {"workflow report", "step write"}
    assert all(span.tags["error"] for span in spans if span.name in cut and "error" in span.tags)


def test_a_killed_run_is_whole_after_resume(shared_stack: Stack, run_id: str) -> None:
    killed = child("run", "flow.py:report", "--id", run_id, KILL_AT="1", **shared_stack.env())
    done = child("resume", run_id, **shared_stack.env())
    spans = arrived(shared_stack, run_id)
    second = [s for s in spans if s.tags["tapps.execution"] == 2 and s.name == "workflow report"]
    cut = {span.span_id for span in spans if span.tags.get("tapps.status") == "interrupted"}

    against = child("verify", run_id, "--against", shared_stack.jaeger_url)

    assert (killed.code, done.code, done.out) == (-9, 0, "[0,-1,-2]\n")
    assert (against.code, against.err) == (0, "")
    assert_whole(spans, run_id)
    assert [set(span.links) <= cut and bool(span.links) for span in second] == [True]
    assert len([span for span in spans if span.name == "step fetch"]) == 1


def test_a_resume_that_is_shorter_than_what_was_killed_has_no_warning(
    shared_stack: Stack, run_id: str
) -> None:
    """Jaeger takes a shorter child after its parent's end for one with a clock that is wrong."""
    long = ("--input", '{"n": 400}', "--quiet")
    child("run", "flow.py:report", "--id", run_id, *long, KILL_AT="399", **shared_stack.env())
    done = child("resume", run_id, "--quiet", **shared_stack.env())
    spans = arrived(shared_stack, run_id)
    first, second = (
        next(s for s in spans if s.name == "workflow report" and s.tags["tapps.execution"] == n)
        for n in (1, 2)
    )
    against = child("verify", run_id, "--against", shared_stack.jaeger_url)

    assert done.code == 0
    assert second.duration < first.duration
    assert_whole(spans, run_id)
    assert (against.code, against.err) == (0, "")


def test_a_run_is_seen_while_it_is_going_on(shared_stack: Stack, run_id: str) -> None:
    with programs.Popen(
        command("run", "flow.py:waiting", "--id", run_id, "--quiet"),
        env=environment(**shared_stack.env()),
    ) as process:
        wait_for(Path("waiting").exists, "the workflow waits")
        marker = wait_for(
            lambda: named(shared_stack, run_id, "workflow waiting started"), "the workflow's marker"
        )
        during = tapps_otel.history(run_id).status
        Path("go").touch()
        assert process.wait() == 0
    spans = arrived(shared_stack, run_id)

    assert during == "running"
    assert marker.tags["tapps.workflow.id"] == run_id
    assert_whole(spans, run_id)


def test_what_is_sent_again_stands_once(shared_stack: Stack, run_id: str) -> None:
    child("run", "flow.py:report", "--id", run_id, **shared_stack.env())
    before = arrived(shared_stack, run_id)
    again = child("send", run_id, "--force", **shared_stack.env())
    last = f"{run_id}-last"
    child("run", "flow.py:report", "--id", last, **shared_stack.env())
    arrived(shared_stack, last)  # it came after the others
    after = arrived(shared_stack, run_id)

    assert again.code == 0
    assert sorted(s.span_id for s in after) == sorted(s.span_id for s in before)
    assert_whole(after, run_id)


def test_jaeger_can_keep_traces_in_memory(
    tmp_path_factory: pytest.TempPathFactory, run_id: str
) -> None:
    need("stack")
    folder = tmp_path_factory.mktemp("stack")
    with stack_up(folder, folder / "no-logs", TAPPS_STACK_JAEGER_STORE="memory") as stack:
        child("run", "flow.py:report", "--id", run_id, **stack.env())

        assert_whole(arrived(stack, run_id), run_id)


def test_open_tells_whether_the_trace_is_there(shared_stack: Stack, run_id: str) -> None:
    env = {**shared_stack.env(), "TAPPS_OTEL_JAEGER_URL": shared_stack.jaeger_url}
    child("run", "flow.py:report", "--id", run_id)
    before = child("open", run_id, **env)
    child("send", run_id, **env)
    arrived(shared_stack, run_id)
    after = child("open", run_id, **env)
    link = f"{shared_stack.jaeger_url}/trace/{trace_id(run_id)}\n"

    assert (before.code, before.out) == (after.code, after.out) == (0, link)
    assert before.err.startswith("this Jaeger does not have the trace yet: ")
    assert before.err.endswith(f"send {run_id}` sends it\n")
    assert after.err == ""


# ---------------------------------------------------------------- nothing is lost


def test_nothing_is_lost_when_collector_and_jaeger_die(own_stack: Stack, run_id: str) -> None:
    runs = [f"{run_id}-{n}" for n in range(4)]

    def report(name: str) -> int:
        return child("run", "flow.py:report", "--id", name, **own_stack.env()).code

    codes = [report(runs[0])]  # arrives
    own_stack.jaeger.kill()
    codes.append(report(runs[1]))  # in the collector's queue on disk
    own_stack.collector.kill()
    codes.append(report(runs[2]))  # only its log has it
    own_stack.collector.start()
    sent = child("send", "--all", **own_stack.env())
    codes.append(report(runs[3]))
    own_stack.collector.kill()
    own_stack.jaeger.start()
    own_stack.collector.start()
    spans = {name: arrived(own_stack, name) for name in runs}
    again = child("send", "--all", "--json", **own_stack.env())

    assert codes == [0, 0, 0, 0]
    assert (sent.code, again.code) == (0, 0)
    assert '"sent": 0' in again.out
    for name in runs:
        assert_whole(spans[name], name)


def test_a_full_queue_refuses_spans_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, run_id: str
) -> None:
    need("stack")
    folder = tmp_path_factory.mktemp("stack")
    runs = [f"{run_id}-{n}" for n in range(3)]
    long = ("--input", '{"n": 100}', "--quiet")
    for name in runs:
        child("run", "flow.py:report", "--id", name, *long, TAPPS_OTEL_DURABILITY="os")
    # Room for one of them.
    with stack_up(folder, folder / "no-logs", TAPPS_STACK_QUEUE_BYTES="150000") as stack:
        impatient = {**stack.env(), "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        stack.jaeger.stop()
        accepted = child("send", runs[0], **stack.env())
        refused = [child("send", name, **impatient) for name in runs[1:]]
        stack.jaeger.start()
        stack.spans(trace_id(runs[0]), started(runs[0]))  # so there is room again
        again = [child("send", name, **stack.env()) for name in runs]

        assert accepted.code == 0
        assert "queue is full" in refused[-1].err
        assert [done.code for done in again] == [0, 0, 0]
        for name in runs:
            assert_whole(arrived(stack, name), name)


def test_jaegers_traces_outlive_it(own_stack: Stack, run_id: str) -> None:
    child("run", "flow.py:report", "--id", run_id, **own_stack.env())
    arrived(own_stack, run_id)
    own_stack.jaeger.kill()
    own_stack.jaeger.start()

    assert_whole(arrived(own_stack, run_id), run_id)


# ---------------------------------------------------------------- metrics


def test_span_metrics_count_every_span_and_no_marker(own_stack: Stack, run_id: str) -> None:
    need("prometheus")
    own_stack.start_prometheus()
    child("run", "flow.py:report", "--id", run_id, OTEL_SERVICE_NAME=NAME, **own_stack.env())
    wait_for(lambda: counted(own_stack) == COUNTED, f"{COUNTED} in Prometheus")
    child("run", "flow.py:report", "--id", f"{run_id}-2", OTEL_SERVICE_NAME=NAME, **own_stack.env())
    twice = {key: 2 * number for key, number in COUNTED.items()}
    # The other process has another id: its spans must be counted in the same series.
    wait_for(lambda: counted(own_stack) == twice, f"{twice} in Prometheus")


COUNTED = {
    ("workflow report", "report", None, "completed"): 1,
    ("step fetch", "report", "fetch", "completed"): 1,
    ("step write", "report", "write", "completed"): 3,
    ("step polish", "report", "polish", "completed"): 3,
    ("step polish", "report", "polish", "failed"): 1,
}


def counted(stack: Stack) -> dict[tuple[Any, ...], int]:
    """How many spans Prometheus knows of, by name, workflow, step and status."""
    answer = requests.get(
        f"http://{stack.addresses['PROMETHEUS']}/api/v1/query",
        params={"query": f'traces_span_metrics_calls_total{{service_name="{NAME}"}}'},
        timeout=10,
    ).json()
    labels = ("span_name", "tapps_workflow_name", "tapps_step_name", "tapps_status")
    return {
        tuple(one["metric"].get(label) for label in labels): int(one["value"][1])
        for one in answer["data"]["result"]
    }


def test_jaegers_monitor_has_calls_errors_and_latencies(own_stack: Stack, run_id: str) -> None:
    need("prometheus")
    own_stack.start_prometheus()
    env = {**own_stack.env(), "OTEL_SERVICE_NAME": NAME}
    query = {
        "service": NAME, "spanKind": "internal", "groupByOperation": "true", "quantile": "0.95",
        "lookback": "600000", "step": "5000", "ratePer": "60000",
    }  # fmt: skip

    def operations(kind: str) -> set[str]:
        """Those with a number above zero."""
        answer = own_stack.ask(f"/api/metrics/{kind}", **query)
        return {
            next(label["value"] for label in metric["labels"] if label["name"] == "operation")
            for metric in answer["metrics"]
            if any(
                (point["gaugeValue"]["doubleValue"] or 0) > 0 for point in metric["metricPoints"]
            )
        }

    # A rate needs to see a count grow.
    child("run", "flow.py:report", "--id", run_id, **env)
    wait_for(lambda: counted(own_stack), "the first counts")
    child("run", "flow.py:report", "--id", f"{run_id}-2", **env)
    expected = {"workflow report", "step fetch", "step write", "step polish"}

    wait_for(lambda: operations("calls") == expected, f"calls of {expected}")
    wait_for(lambda: operations("errors") == {"step polish"}, "errors of step polish")
    wait_for(lambda: operations("latencies") == expected, f"latencies of {expected}")


def test_what_programs_measure_themselves_is_there_too(own_stack: Stack, run_id: str) -> None:
    env = {**own_stack.env(), "OTEL_METRICS_EXPORTER": "otlp"}
    done = child("run", "flow.py:report", "--id", run_id, **env)

    def attempts() -> int:
        text = requests.get(
            f"http://{own_stack.addresses['SPAN_METRICS']}/metrics", timeout=10
        ).text
        begun = re.findall(r"^tapps_step_attempts_total{.*} (\d+)$", text, re.MULTILINE)
        return sum(map(int, begun))

    assert (done.code, done.err.count("not sent")) == (0, 0)
    assert wait_for(attempts, "the program's metrics") == 8


def test_the_metrics_have_buckets_that_fit_workflows(own_stack: Stack, run_id: str) -> None:
    child("run", "flow.py:report", "--id", run_id, **own_stack.env())

    def buckets() -> set[float]:
        text = requests.get(
            f"http://{own_stack.addresses['SPAN_METRICS']}/metrics", timeout=10
        ).text
        lines = [line for line in text.splitlines() if "duration_milliseconds_bucket{" in line]
        ends = {line.partition('le="')[2].partition('"')[0] for line in lines}
        return {float(end) / 1000 for end in ends}

    found = wait_for(buckets, "span metrics")

    assert {0.01, 1, 60, 3600, 86_400} <= found
