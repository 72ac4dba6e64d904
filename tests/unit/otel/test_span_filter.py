"""The setting ``span_filter``: what leaves the machine is what it returns, and never anything else.

It is in a module of the program, which its own exporter uses too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from choosy_collector import Choosy, choosy
from commands import Cli, Done, child
from tapps_otel import settings
from tapps_otel.errors import SettingsError

pytestmark = pytest.mark.slow

SECRET = "Xk9canary7"
FILTERS = """
from opentelemetry.sdk.trace import ReadableSpan

def clean(span):
    if span.name == "step quiet":
        return None
    attributes = {name: value for name, value in span.attributes.items() if name != "customer"}
    return ReadableSpan(
        span.name, context=span.context, parent=span.parent, resource=span.resource,
        attributes=attributes, events=span.events, links=span.links, kind=span.kind,
        status=span.status, start_time=span.start_time, end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )

def broken(span):
    if span.name == "step quiet":
        raise ValueError("of the filter")
    return span

def no_work(span):
    return None if span.name == "step work" else span

def odd(span):
    return "a span"

no_function = 1
"""
FLOW = f"""
import os, signal
from opentelemetry import trace
from tapps_otel import step, workflow

@step
def work(n: int) -> None:
    trace.get_current_span().set_attribute("customer", "{SECRET}")

@step
def quiet() -> None: ...

@step
def last() -> None:
    trace.get_current_span().set_attribute("customer", "{SECRET}")
    if os.environ.get("KILL"):
        os.kill(os.getpid(), signal.SIGKILL)

@workflow
def flow() -> None:
    work(1)
    quiet()
    work(2)
    last()
"""
CLEAN = {"TAPPS_OTEL_SPAN_FILTER": "filters:clean"}
HERE = {"OTEL_TRACES_EXPORTER": "console"}  # the program's own exporter


@pytest.fixture(autouse=True)
def _modules() -> None:
    Path("filters.py").write_text(FILTERS, "utf-8")
    Path("flow.py").write_text(FLOW, "utf-8")


@pytest.fixture
def collector() -> Iterator[Choosy]:
    with choosy("http/protobuf", lambda _: False) as made:
        yield made


def run(**env: str) -> Done:
    return child(
        "run", "flow.py:flow", "--id", "r", "--quiet",
        TAPPS_OTEL_ANNOUNCE="off", TAPPS_OTEL_SHUTDOWN_TIMEOUT="30", **env,
    )  # fmt: skip


def send(collector: Choosy, *arguments: str, **env: str) -> Done:
    return child("send", "r", "--json", *arguments, **collector.env, **env)


WORK = ["step last", "step work", "step work", "workflow flow"]


def test_a_send_sends_what_the_filter_returns(collector: Choosy) -> None:
    run(**HERE)
    done = send(collector, **CLEAN)
    again = json.loads(send(collector, **CLEAN).out)

    assert sorted(collector.accepted) == WORK
    assert SECRET.encode() not in collector.bodies
    assert (json.loads(done.out)["sent"], json.loads(done.out)["left_out"]) == (4, 1)
    assert (again["sent"], again["confirmed"], again["ok"]) == (0, 4, True)


def test_the_installed_command_finds_the_module_in_the_working_directory(
    collector: Choosy,
) -> None:
    run(**HERE)
    script = str(Path(sys.executable).with_name("tapps-otel"))
    done = subprocess.run(
        [script, "send", "r"],
        env={**os.environ, **collector.env, **CLEAN},
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(collector.accepted) == WORK


def test_without_it_the_secret_is_sent(collector: Choosy) -> None:
    run(**HERE)
    send(collector)

    assert SECRET.encode() in collector.bodies
    assert "step quiet" in collector.accepted


def test_a_live_run_sends_it_too_and_so_does_nothing_later(collector: Choosy) -> None:
    live = run(**collector.env, **CLEAN)
    later = json.loads(send(collector, **CLEAN).out)

    assert (live.code, live.err) == (0, "")
    assert sorted(collector.accepted) == WORK
    assert SECRET.encode() not in collector.bodies
    assert (later["sent"], later["confirmed"]) == (0, 4)


def test_a_resume_sends_it_too(collector: Choosy) -> None:
    killed = run(KILL="1", **HERE)
    child(
        "resume", "r", TAPPS_OTEL_ANNOUNCE="off", TAPPS_OTEL_SHUTDOWN_TIMEOUT="30",
        **collector.env, **CLEAN,
    )  # fmt: skip

    assert killed.code == -signal.SIGKILL
    assert sorted(collector.accepted) == ["step last", *WORK, "workflow flow"]
    assert SECRET.encode() not in collector.bodies


def test_a_filter_may_leave_out_what_was_sent_before(collector: Choosy) -> None:
    """Also the last span that the collector acknowledged."""
    killed = run(KILL="1", **HERE)
    first = json.loads(send(collector).out)
    child("resume", "r", "--quiet")
    done = send(collector, TAPPS_OTEL_SPAN_FILTER="filters:no_work")
    report = json.loads(done.out)

    assert killed.code == -signal.SIGKILL
    assert (done.code, first["sent"], report["sent"]) == (0, 5, 2)
    assert len(collector.ids) == len(set(collector.ids)) == 7


def test_a_span_that_was_refused_can_be_left_out_for_good() -> None:
    run(**HERE)
    with choosy("http/protobuf", lambda span: span.name == "step quiet") as collector:
        refused = send(collector)
        forced = send(collector, "--force", **CLEAN)
        again = send(collector, **CLEAN)

    assert (refused.code, forced.code, again.code) == (7, 0, 0)
    assert json.loads(refused.out)["refused"] == 1
    assert json.loads(again.out)["refused"] == 0


@pytest.mark.parametrize("form", ["otlp-json", "chrome-trace"])
def test_an_export_has_what_it_returns(form: str) -> None:
    run(**HERE)
    clean = child("export", "r", "--format", form, **CLEAN)
    clear = child("export", "r", "--format", form)

    assert (clean.code, SECRET in clean.out, "step quiet" in clean.out) == (0, False, False)
    assert (SECRET in clear.out, "step work" in clean.out) == (True, True)


def test_a_comparison_expects_what_it_returns(cli: Cli) -> None:
    run(**HERE)
    child("export", "r", "--format", "otlp-json", "--output", "stored.jsonl", **CLEAN)

    assert child("verify", "r", "--against", "stored.jsonl", **CLEAN).code == 0
    assert cli("verify", "r", "--against", "stored.jsonl").code == 1


def test_a_filter_that_fails_sends_nothing_and_is_named(collector: Choosy) -> None:
    run(**HERE)
    broken = {"TAPPS_OTEL_SPAN_FILTER": "filters:broken"}
    done = send(collector, **broken)
    every = child("send", "--all", **collector.env, **broken)
    odd = send(collector, TAPPS_OTEL_SPAN_FILTER="filters:odd")
    after = send(collector, **CLEAN)

    assert done.code == odd.code == 1
    assert "failed on span 'step quiet': ValueError: of the filter" in done.err
    assert "it returned a str" in odd.err
    assert (every.code, "failed on span 'step quiet'" in every.out) == (1, True)
    assert json.loads(after.out)["sent"] == 3
    assert collector.accepted.count("step work") == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere:clean", "cannot import 'nowhere:clean': ModuleNotFoundError"),
        ("filters:missing", "cannot import 'filters:missing': AttributeError"),
        ("filters:no_function", "'filters:no_function' is not a function"),
        ("filters.py", "package.module:function"),
    ],
)
def test_a_filter_that_is_none_is_wrong_usage(collector: Choosy, path: str, said: str) -> None:
    run(**HERE)
    done = send(collector, TAPPS_OTEL_SPAN_FILTER=path)
    live = run(TAPPS_OTEL_LOG_DIR="other", TAPPS_OTEL_SPAN_FILTER=path, **collector.env)

    assert done.code == 2
    assert said in done.err
    assert said in live.err
    assert collector.accepted == []


def test_a_function_can_be_configured() -> None:
    with settings.use(span_filter=lambda span: span) as config:
        assert callable(config.span_filter)
    with (
        pytest.raises(SettingsError, match=r"package\.module:function"),
        settings.use(span_filter="no path"),
    ):
        pass
