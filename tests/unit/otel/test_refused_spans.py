"""A span that a collector refuses costs no other span, and is named; then it is left alone."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import programs
from choosy_collector import Choosy, choosy
from commands import LOGS, Cli, Done, child, environment
from effort import sample
from tapps_otel import configure, step, workflow

pytestmark = pytest.mark.slow

FLOW = """
import os, signal
from tapps_otel import step, workflow

@step
def work(n: int) -> int:
    return n

@step
def bad(n: int) -> int:
    return n

@step
def last() -> None:
    if os.environ.get("KILL"):
        os.kill(os.getpid(), signal.SIGKILL)

@workflow
def flow(count: int = 40) -> None:
    for n in range(count):
        (bad if n == 20 else work)(n)
    last()
"""


def is_bad(span: Any) -> bool:
    return bool(span.name == "step bad")


@pytest.fixture(params=["grpc", "http/protobuf"])
def collector(request: pytest.FixtureRequest) -> Iterator[Choosy]:
    """A collector that refuses requests with a span of the step `bad`."""
    with choosy(request.param, is_bad) as made:
        yield made


@step
def work(n: int) -> int:
    return n


@step
def bad(n: int) -> int:
    return n


@workflow
def flow(count: int, at: int | None) -> None:
    for n in range(count):
        (bad if n == at else work)(n)


@workflow
def many(count: int) -> None:
    for n in range(count):
        bad(n)
    for n in range(count):
        work(n)


def run(name: str, count: int, at: int | None = None) -> None:
    configure(durability="os")
    flow.options(workflow_id=name)(count, at)


def send(cli: Cli, collector: Choosy, *arguments: str) -> Done:
    to = ("--endpoint", collector.endpoint, "--protocol", collector.protocol)
    return cli("send", *arguments, *to)


def test_only_the_refused_span_is_not_sent_and_it_is_named(cli: Cli, collector: Choosy) -> None:
    run("a", 600, 300)
    done = send(cli, collector, "a")

    assert done.code == 7
    assert done.out.startswith("problem a  600 spans sent, 1 span refused, to ")
    assert "(step bad) was refused: " in done.out
    assert "no, not that one" in done.out
    assert len(collector.accepted) == len(set(collector.ids)) == 600
    assert collector.requests < 30


def test_other_runs_are_sent_too_and_the_refused_spans_are_listed(
    cli: Cli, collector: Choosy
) -> None:
    for number in range(4):
        run(f"r{number}", 5, 2 if number in {1, 2} else None)
    done = send(cli, collector, "--all")

    assert done.code == 7
    assert sum(name.startswith("workflow") for name in collector.accepted) == 4
    assert len(collector.accepted) == 4 * 6 - 2
    assert "2 spans refused, of 2 runs: r" in done.err
    assert "send --force RUN" in done.err


def test_a_refused_span_is_not_sent_again_and_still_told(cli: Cli, collector: Choosy) -> None:
    run("a", 5, 2)
    send(cli, collector, "a")
    before = collector.requests
    again = send(cli, collector, "a", "--json")
    report = json.loads(again.out)

    assert again.code == 7
    assert collector.requests == before
    assert (report["sent"], report["confirmed"], report["refused"]) == (0, 5, 1)
    assert "was refused before" in report["problems"][0]


def test_a_collector_that_takes_more_now_gets_it_by_force(cli: Cli, collector: Choosy) -> None:
    run("a", 5, 2)
    send(cli, collector, "a")
    collector.poison = lambda _: False
    forced = send(cli, collector, "a", "--force")
    again = send(cli, collector, "a", "--json")

    assert (forced.code, again.code) == (0, 0)
    assert "step bad" in collector.accepted
    assert json.loads(again.out)["confirmed"] == 6


def test_what_a_run_adds_after_a_refusal_is_sent(cli: Cli, collector: Choosy) -> None:
    run("a", 5, 2)
    path = LOGS / "a.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:9]))  # killed in its fifth step
    killed = send(cli, collector, "a", "--json")
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:9]))
    flow.resume("a")
    resumed = send(cli, collector, "a", "--json")

    assert (killed.code, resumed.code) == (7, 7)
    assert json.loads(killed.out)["refused"] == json.loads(resumed.out)["refused"] == 1
    assert len(collector.ids) == len(set(collector.ids))
    assert collector.accepted.count("workflow flow") == 2


@pytest.mark.parametrize(
    ("protocol", "status"),
    [
        ("http/protobuf", 400),
        ("http/protobuf", 422),
        ("grpc", grpc.StatusCode.INVALID_ARGUMENT),
        ("grpc", grpc.StatusCode.OUT_OF_RANGE),
    ],
)
def test_a_span_may_be_refused_for_other_reasons_than_its_size(
    cli: Cli, protocol: str, status: Any
) -> None:
    run("a", 5, 2)
    with choosy(protocol, is_bad, status) as collector:
        done = send(cli, collector, "a", "--json")

    assert done.code == 7
    assert (json.loads(done.out)["sent"], json.loads(done.out)["refused"]) == (5, 1)


@pytest.mark.parametrize(
    ("protocol", "status"),
    [("http/protobuf", 400), ("http/protobuf", 403), ("grpc", grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
def test_a_collector_that_refuses_everything_is_left_alone(
    cli: Cli, protocol: str, status: Any
) -> None:
    """As where a quota is used up: no span is to blame, and none is noted as refused."""
    run("a", 600)
    run("b", 600)
    with choosy(protocol, None, status) as collector:
        done = send(cli, collector, "--all")

    assert (done.code, done.out) == (7, "")
    assert "no, not that one" in done.err
    assert collector.requests <= 2
    assert not list(LOGS.glob("*.ledger"))


def test_a_ledger_that_cannot_be_written_lets_the_span_be_sent_again(
    cli: Cli, collector: Choosy
) -> None:
    run("a", 5, 2)
    (LOGS / "a.ledger").mkdir()
    done = send(cli, collector, "a", "--force", "--json")

    assert json.loads(done.out)["refused"] == 1
    assert any("a.ledger: cannot be written" in one for one in json.loads(done.out)["problems"])


def test_a_span_that_is_alone_and_too_large_is_named_and_left_alone(
    cli: Cli, collector: Choosy
) -> None:
    collector.poison = lambda span: span.name == "workflow flow"
    run("a", 0)
    first = send(cli, collector, "a", "--json")
    before = collector.requests
    again = send(cli, collector, "a", "--json")

    assert (first.code, again.code) == (7, 7)
    assert json.loads(first.out)["refused"] == json.loads(again.out)["refused"] == 1
    assert collector.requests == before


@pytest.mark.parametrize(
    ("protocol", "status"),
    [("http/protobuf", 400), ("grpc", grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_a_refused_span_without_another_is_sent_again_and_holds_up_no_run(
    cli: Cli, protocol: str, status: Any
) -> None:
    """Whether the span or the collector is to blame cannot be told."""
    run("a", 0)
    run("b", 5)
    with choosy(protocol, lambda span: span.name == "workflow flow", status) as collector:
        first = send(cli, collector, "--all")
        refused = list(collector.accepted)
        collector.poison = lambda _: False
        again = send(cli, collector, "a")

    assert (first.code, again.code) == (7, 0)
    assert refused == ["step work"] * 5
    assert collector.accepted == [*refused, "workflow flow"]


def test_many_refused_spans_in_a_row_hold_up_no_other_for_good(cli: Cli, collector: Choosy) -> None:
    configure(durability="os")
    many.options(workflow_id="a")(50)
    for _ in range(5):
        send(cli, collector, "a")
    before = collector.requests
    last = json.loads(send(cli, collector, "a", "--json").out)

    assert collector.accepted == ["step work"] * 50 + ["workflow many"]
    assert (last["sent"], last["confirmed"], last["refused"]) == (0, 51, 50)
    assert collector.requests == before


# ---------------------------------------------------------------- outages

OUTAGES: list[tuple[str, Any]] = [
    ("http/protobuf", 500),
    ("http/protobuf", 422),
    ("grpc", grpc.StatusCode.UNKNOWN),
    ("grpc", grpc.StatusCode.INTERNAL),
    ("grpc", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ("grpc", grpc.StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("protocol", "status"), OUTAGES)
def test_what_was_sent_in_an_outage_is_sent_after_it(cli: Cli, protocol: str, status: Any) -> None:
    """As where the store behind a collector is broken: it still accepts a request without spans."""
    run("a", 600)
    with choosy(protocol, lambda _: True, status) as collector:
        during = send(cli, collector, "a")
        requests = collector.requests
        collector.poison = lambda _: False
        after = send(cli, collector, "a", "--json")

    assert during.code == 7
    assert "no, not that one" in during.out + during.err
    assert requests < 100
    assert after.code == 0
    assert (json.loads(after.out)["sent"], json.loads(after.out)["refused"]) == (601, 0)


@pytest.mark.parametrize(
    ("protocol", "status"),
    [
        ("http/protobuf", 500),
        ("grpc", grpc.StatusCode.INTERNAL),
        ("grpc", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_collector_that_fails_at_some_spans_has_not_refused_them(
    cli: Cli, protocol: str, status: Any
) -> None:
    run("a", 5, 2)
    with choosy(protocol, is_bad, status) as collector:
        during = send(cli, collector, "a")
        requests = collector.requests
        collector.poison = lambda _: False
        after = send(cli, collector, "a", "--json")

    assert (during.code, requests) == (7, 1)
    assert (after.code, json.loads(after.out)["sent"]) == (0, 6)


@pytest.mark.parametrize(("protocol", "status"), sample(OUTAGES, 3))
def test_what_a_live_run_sent_in_an_outage_is_sent_after_it(protocol: str, status: Any) -> None:
    Path("flow.py").write_text(FLOW, "utf-8")
    with choosy(protocol, lambda _: True, status) as collector:
        done = child("run", "flow.py:flow", "--id", "r", TAPPS_OTEL_ANNOUNCE="off", **collector.env)
        collector.poison = lambda _: False
        sent = child("send", "r", "--json", **collector.env)
    report = json.loads(sent.out)

    assert done.code == 0
    assert "42 of 42 spans were not sent to " in done.err
    assert (report["sent"], report["refused"], sent.code) == (42, 0, 0)


# ---------------------------------------------------------------- live spans, and resumes


def test_a_live_run_sends_the_others_and_counts_right(collector: Choosy) -> None:
    Path("flow.py").write_text(FLOW, "utf-8")
    done = child("run", "flow.py:flow", "--id", "r", TAPPS_OTEL_ANNOUNCE="off", **collector.env)
    sent = child("send", "r", "--json", **collector.env)
    report = json.loads(sent.out)

    assert done.code == 0
    assert "refused span " in done.err
    assert "(step bad): " in done.err
    assert "not sent to" not in done.err  # nothing is left that `send` could send
    assert sorted(set(collector.accepted)) == ["step last", "step work", "workflow flow"]
    assert len(collector.ids) == len(set(collector.ids)) == 41
    assert (report["sent"], report["refused"], sent.code) == (0, 1, 7)


def test_a_resume_catches_up_with_the_others(collector: Choosy) -> None:
    Path("flow.py").write_text(FLOW, "utf-8")
    killed = programs.run(
        [sys.executable, "-m", "tapps_otel", "run", "flow.py:flow", "--id", "r"],
        env=environment(KILL="1"),
        check=False,
        capture_output=True,
    )
    done = child(
        "resume", "r", TAPPS_OTEL_ANNOUNCE="off", TAPPS_OTEL_SHUTDOWN_TIMEOUT="30", **collector.env
    )
    sent = child("send", "r", "--json", **collector.env)

    assert (killed.returncode, done.code) == (-signal.SIGKILL, 0)
    assert "(step bad) was refused: " in done.err
    assert len(collector.ids) == len(set(collector.ids)) == 43
    assert (json.loads(sent.out)["sent"], json.loads(sent.out)["refused"]) == (0, 1)
