"""Subprocesses of steps join the step's trace, with an SDK and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.sdk.trace import TracerProvider

import tapps_otel
from tapps_otel import child_env, step, workflow
from tapps_otel.otel.propagation import parent_of

PARENT = "TAPPS_OTEL_PARENT"
WHERE = """
import tapps_otel
from opentelemetry import trace
here = trace.get_current_span().get_span_context()
print(f"{here.trace_id:032x} {here.span_id:016x} {here.is_remote}")
"""
IN_THREAD = """
import tapps_otel
from threading import Thread
from opentelemetry import trace

def show():
    here = trace.get_current_span().get_span_context()
    print(f"{here.trace_id:032x} {here.span_id:016x} {here.is_remote}")

thread = Thread(target=tapps_otel.bind(show))
thread.start()
thread.join()
"""
OWN_RUN = """
from tapps_otel import Run
with Run.open("inner", workflow_id="inner"):
    pass
"""


@pytest.fixture(autouse=True)
def _short_logs(tmp_path: Path) -> None:
    tapps_otel.configure(log_dir=tmp_path / "logs", durability="os")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", made)
    yield made
    made.shutdown()


def in_step(run: str = "r") -> dict[str, str]:
    """The environment for a child of a step."""
    seen: dict[str, str] = {}

    @step
    def delegate() -> None:
        seen.update(child_env())

    @workflow
    def flow() -> None:
        delegate()

    flow.options(workflow_id=run)()
    return seen


def started(run: str = "r") -> dict[str, Any]:
    """The step's start in the log."""
    found = next(e for e in tapps_otel.events(run) if e.event_type == "step_start")
    return found.model_dump()


def python(source: str, env: dict[str, str]) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout, done.stderr


def test_a_childs_environment_names_the_steps_span_and_the_run(
    provider: TracerProvider, tmp_path: Path
) -> None:
    env, begun = in_step(), started()

    assert env["TRACEPARENT"].split("-")[1:3] == [begun["trace_id"], begun["span_id"]]
    assert json.loads(env[PARENT]) == {
        "workflow_id": "r",
        "execution": 1,
        "log_dir": str(tmp_path / "logs"),
    }
    assert env["TAPPS_OTEL_LOG_DIR"] == str(tmp_path / "logs")
    assert env["PATH"] == os.environ["PATH"]  # it is a whole environment
    assert "TRACEPARENT" not in os.environ


def test_a_childs_environment_names_the_steps_span_without_an_sdk() -> None:
    env, begun = in_step(), started()

    assert env["TRACEPARENT"] == f"00-{begun['trace_id']}-{begun['span_id']}-01"


def test_baggage_and_trace_state_are_propagated(provider: TracerProvider) -> None:
    token = contexts.attach(baggage.set_baggage("customer", "7 & more"))
    try:
        env = in_step()
    finally:
        contexts.detach(token)

    assert env["BAGGAGE"] == "customer=7+%26+more"


@pytest.mark.parametrize("source", [WHERE, IN_THREAD])
def test_a_child_that_imports_the_package_joins_the_trace(source: str) -> None:
    env, begun = in_step(), started()

    assert python(source, env) == (f"{begun['trace_id']} {begun['span_id']} True\n", "")


def test_a_childs_run_is_under_the_step_and_in_the_same_folder() -> None:
    env, begun = in_step(), started()
    python(OWN_RUN, env)
    inner = next(iter(tapps_otel.events("inner")))

    assert (inner.trace_id, inner.parent_span_id) == (begun["trace_id"], begun["span_id"])
    assert tapps_otel.history("inner").status == "completed"


def test_outside_a_run_only_the_current_span_is_propagated(provider: TracerProvider) -> None:
    with provider.get_tracer("t").start_as_current_span("request") as span:
        env = child_env()
    context = span.get_span_context()

    assert env["TRACEPARENT"].split("-")[2] == f"{context.span_id:016x}"
    assert PARENT not in env
    assert child_env() == dict(os.environ)


def test_a_child_of_a_child_belongs_to_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    env = in_step()
    monkeypatch.setenv(PARENT, env[PARENT])

    assert child_env()[PARENT] == env[PARENT]


GOOD = {"workflow_id": "r", "execution": 2, "log_dir": "/logs"}


def test_the_parent_variable_is_read_back() -> None:
    found = parent_of({PARENT: json.dumps(GOOD)})

    assert found is not None
    assert (found.workflow_id, found.execution, found.folder) == ("r", 2, Path("/logs"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        json.dumps(GOOD | {"workflow_id": "../../etc/passwd"}),
        json.dumps(GOOD | {"workflow_id": 7}),
        json.dumps(GOOD | {"execution": 0}),
        json.dumps(GOOD | {"execution": "1"}),
        json.dumps(GOOD | {"execution": True}),
        json.dumps(GOOD | {"log_dir": "relative"}),
        json.dumps(GOOD | {"log_dir": "/a\0b"}),
        json.dumps({"workflow_id": "r"}),
    ],
)
def test_a_malformed_variable_names_no_run(value: str) -> None:
    assert parent_of({PARENT: value}) is None


def test_a_child_with_a_malformed_variable_warns_and_joins_no_run() -> None:
    out, err = python(WHERE, {**os.environ, PARENT: "\x1b]0;nonsense", "TRACEPARENT": "x"})

    assert out == f"{0:032x} {0:016x} False\n"
    assert err == (
        f"the environment variable {PARENT} does not hold what child_env() writes: this process "
        "joins no run. Start it with env=child_env(), or unset the variable.\n"
    )
