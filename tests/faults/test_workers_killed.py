"""Steps in process pools, whose workers and drivers are killed with SIGKILL."""

from __future__ import annotations

import os
import signal
from itertools import product
from pathlib import Path

import pytest

from capabilities import need
from commands import Cli
from effort import sample
from otlp_collector import is_marker, once
from tapps_otel import history, verify
from waiting import until
from worker_programs import (
    assert_one_trace,
    collecting,
    did,
    ended,
    is_alive,
    is_server,
    of_type,
    processes_of,
    spans_of_log,
    started,
    starts,
    workers,
    write_program,
)

pytestmark = pytest.mark.slow
KINDS = ["fork", "spawn", "forkserver"]


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(monkeypatch)


# -- process pools


@pytest.mark.parametrize("kind", KINDS)
def test_no_worker_outlives_its_driver_and_a_resume_repeats_nothing_that_ended(kind: str) -> None:
    with started("flow", kind) as child:
        until(lambda: len(workers()) == 2)
        pids = workers()
        child.kill()
        child.wait()
        until(lambda: not any(map(is_alive, pids)))
    # What waited for a worker has not started, so it was not interrupted.
    assert starts("slow") == [("slow", 1), ("slow#2", 1)]
    Path("go").touch()
    assert ended("flow", kind) == "['A', 'B', 'C']\n"
    assert [did.count(f"draft {page}") for page in "abc"] == [1, 1, 1]
    assert sorted(starts("slow")) == [
        ("slow", 1), ("slow", 2), ("slow#2", 1), ("slow#2", 2),
        ("slow#3", 1), ("slow#4", 1), ("slow#5", 1),
    ]  # fmt: skip
    assert verify("r").ok


def test_idle_workers_do_not_outlive_their_driver_either() -> None:
    need("proc")
    with started("one_of_four", "fork") as child:
        until(workers)
        group = processes_of(child.pid) - {child.pid}
        assert len(group) >= 4
        child.kill()
        child.wait()
        until(lambda: not any(map(is_alive, group)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_worker_interrupts_its_step_which_runs_again_at_once(kind: str) -> None:
    with started("flow", kind) as child:
        until(lambda: len(workers()) == 2)
        os.kill(workers()[0], signal.SIGKILL)
        until(lambda: len(workers()) == 4)  # the whole pool was broken, and is renewed
        Path("go").touch()
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "['A', 'B', 'C']\n"), err
    failed = of_type("step_fail")
    assert {one["status"] for one in failed} == {"interrupted"}
    assert {one["execution"] for one in of_type("step_start")} == {1}
    assert {attempt for step_id, attempt in starts("slow") if step_id == "slow"} == {1, 2}
    assert verify("r").ok


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_ends_driver_and_workers(kind: str) -> None:
    with started("flow", kind) as child:
        until(lambda: len(workers()) == 2)
        group = processes_of(child.pid)
        os.killpg(child.pid, signal.SIGINT)
        child.communicate(timeout=60)
        assert child.returncode == 130
        until(lambda: not any(is_alive(pid) for pid in group if not is_server(pid)))
    assert history("r").status == "interrupted"
    Path("go").touch()
    assert ended("flow", kind) == "['A', 'B', 'C']\n"


def test_loky_replaces_its_broken_pool_and_ends_with_its_driver() -> None:
    pytest.importorskip("loky", reason="needs loky: pip install loky")
    with started("flow", "loky") as child:
        until(lambda: len(workers()) == 2)
        os.kill(workers()[0], signal.SIGKILL)
        until(lambda: len(workers()) == 4)
        pids = workers()[2:]
        child.kill()
        child.wait()
        until(lambda: not any(map(is_alive, pids)))
    Path("go").touch()
    assert ended("flow", "loky") == "['A', 'B', 'C']\n"
    assert [did.count(f"draft {page}") for page in "abc"] == [1, 1, 1]


# -- spans


@pytest.mark.parametrize("kind", KINDS)
def test_spans_made_by_workers_stand_once_in_trace_and_log(kind: str) -> None:
    with collecting() as (sink, env):
        assert ended("asking", kind, env=env) == "6\n"
    assert_one_trace(once(sink.spans))
    assert sorted(str(one.name) for one in spans_of_log()) == [f"ask {n}" for n in range(4)]
    assert len({one.span_id for one in spans_of_log()}) == 4
    assert {one.execution for one in spans_of_log()} == {1}
    assert list(Path("logs").glob("*+*")) == []  # no side logs


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_spans_are_sent_by_a_provider_that_the_program_has_made(kind: str) -> None:
    with collecting() as (sink, env):
        ended("asking", kind, env={**env, "OWN_PROVIDER": "1"})
    assert_one_trace(once(sink.spans))
    assert len(spans_of_log()) == 4


def test_spans_that_are_sent_from_the_log_are_those_that_were_sent_live(cli: Cli) -> None:
    with collecting() as (sink, env):
        ended("asking", "fork", env=env)
        live = {one.span_id for one in sink.spans if not is_marker(one)}
        endpoint = env["OTEL_EXPORTER_OTLP_ENDPOINT"]
        done = cli("send", "r", "--force", "--endpoint", endpoint, "--protocol", "http/protobuf")
        assert done.code == 0, done.err
        again = [one for one in sink.spans if not is_marker(one)]
    assert {one.span_id for one in once(again)} == live  # each with the same bytes
    assert len(again) == 2 * len(live)
    (step,) = [one for one in once(again) if one.attributes.get("tapps.step.id") == "ask"]
    assert step.attributes["tapps.engine"] == "ProcessPoolExecutor"
    assert step.attributes["tapps.worker.pid"] > 0


def test_an_exporter_of_the_worker_writes_no_span_a_second_time() -> None:
    with collecting() as (_, env):
        ended("asking", "fork", env={**env, "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"})
    assert len(spans_of_log()) == 4
    assert list(Path("logs").glob("*+*")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_spans_made_by_workers_are_redacted_by_the_rules_of_the_run(kind: str) -> None:
    with collecting() as (sink, env):
        ended("asking_for_card", kind, env={**env, "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl"})
    (sent,) = [one for one in once(sink.spans) if one.name == "ask"]
    assert (sent.attributes["card"], sent.attributes["text"]) == ("***", "it is ***")
    assert len(spans_of_log()) == 1
    log = Path("logs/r.jsonl").read_text()
    assert "visa4111" not in log
    assert "PAN4111" not in log


@pytest.mark.parametrize(("kind", "given"), sample(product(KINDS, ["function", "lambda"]), 2))
def test_spans_leave_workers_through_the_filter_of_the_run(kind: str, given: str) -> None:
    with collecting() as (sink, env):
        ended("asking", kind, env={**env, "FILTER": given})
    sent = sorted(one.name for one in once(sink.spans) if one.name.startswith("ask"))
    cannot_get_it = given == "lambda" and kind != "fork"
    assert sent == ([] if cannot_get_it else ["ask 1", "ask 2", "ask 3"])
    assert len(spans_of_log()) == 4


def test_the_spans_of_an_answer_are_bounded() -> None:
    with collecting() as (_, env):
        ended("asking_much", "fork", env=env)
    kept = len(spans_of_log())
    (dropped,) = of_type("annotation")
    assert dropped["name"] == "tapps.worker.dropped"
    assert 15 < kept < 25
    assert dropped["attributes"] == {"annotations": 0, "spans": 40 - kept}


# -- code


def test_another_version_of_the_code_in_a_worker_is_reported_once() -> None:
    with started("changed", "spawn") as child:
        out, err = child.communicate(timeout=60)
    assert out == "['FIRST', 'second', 'third']\n"
    assert err.count("another version of its code") == 1
    (note,) = of_type("annotation")
    assert note["name"] == "tapps.worker.definition_differs"
    assert note["attributes"]["step"] == "draft"
    assert note["attributes"]["driver"] != note["attributes"]["worker"]
