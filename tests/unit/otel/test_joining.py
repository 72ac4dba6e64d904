"""Settings of the delivery in programs whose provider was set before the first run."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import programs
from choosy_collector import Choosy, choosy
from commands import Done, child, environment

PROGRAM = """
import os, signal, sys
import tapps_otel
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.{module} import OTLPSpanExporter

provider = TracerProvider(resource=Resource.create({{"service.name": "theirs"}}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # of the standard variables
trace.set_tracer_provider(provider)

@tapps_otel.step
def work(n: int) -> None:
    with trace.get_tracer("library").start_as_current_span("GET"):
        if n == 1 and os.environ.get("KILL"):
            os.kill(os.getpid(), signal.SIGKILL)

@tapps_otel.workflow
def flow() -> None:
    for n in range(3):
        work(n)

{configure}
flow.options(workflow_id="r")()
"""
MODULES = {"grpc": "grpc.trace_exporter", "http/protobuf": "http.trace_exporter"}
HTTP = "http/protobuf"
ALL = ["GET"] * 3 + ["step work"] * 3 + ["workflow flow"]


@pytest.fixture(params=["grpc", "http/protobuf"])
def collectors(request: pytest.FixtureRequest) -> Iterator[tuple[Choosy, Choosy]]:
    """The program's own collector, and that of the settings: both accept everything."""
    with ExitStack() as stack:
        theirs, ours = (
            stack.enter_context(choosy(request.param, lambda _: False)) for _ in range(2)
        )
        yield theirs, ours


def program(theirs: Choosy, configure: str = "", *, sets_provider: bool = True, **env: str) -> Done:
    """Run the program, with its own provider set before its first run, or with none."""
    text = PROGRAM.format(module=MODULES[theirs.protocol], configure=configure)
    if not sets_provider:
        text = text.replace("trace.set_tracer_provider(provider)", "")
    Path("program.py").write_text(text, "utf-8")
    given = {**theirs.env, "TAPPS_OTEL_ANNOUNCE": "off", **env}
    done = programs.run(
        [sys.executable, "program.py"],
        env=environment(**given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def setting(ours: Choosy, **more: str) -> str:
    given = {"otlp_endpoint": ours.endpoint, "otlp_protocol": ours.protocol, **more}
    return f"tapps_otel.configure(**{given!r})"


def test_a_configured_endpoint_gets_the_spans_too(collectors: tuple[Choosy, Choosy]) -> None:
    theirs, ours = collectors
    done = program(theirs, setting(ours))
    sent = child("send", "r", "--json", **ours.env)

    assert (done.code, done.err) == (0, "")
    assert sorted(theirs.accepted) == sorted(ours.accepted) == ALL
    assert sorted(theirs.ids) == sorted(ours.ids)
    assert (json.loads(sent.out)["sent"], json.loads(sent.out)["confirmed"]) == (0, 4)


def test_an_endpoint_that_the_program_sends_to_already_gets_them_once(
    collectors: tuple[Choosy, Choosy],
) -> None:
    theirs, _ = collectors
    done = program(theirs, setting(theirs))

    assert (done.code, done.err) == (0, "")
    assert sorted(theirs.accepted) == ALL


def test_addresses_that_differ_in_their_path_are_two() -> None:
    """As of two projects whose collector is one host."""
    with choosy("http/protobuf", lambda _: False) as host:
        ours = f"tapps_otel.configure(otlp_endpoint='{host.endpoint}/ours', otlp_protocol='{HTTP}')"
        done = program(host, ours, OTEL_EXPORTER_OTLP_ENDPOINT=f"{host.endpoint}/theirs")

    assert (done.code, done.err) == (0, "")
    assert host.paths == {"/theirs/v1/traces", "/ours/v1/traces"}
    assert sorted(host.accepted) == sorted(2 * ALL)


def test_a_second_path_is_not_used_and_that_is_told() -> None:
    with choosy("http/protobuf", lambda _: False) as host:
        first, second = (
            f"tapps_otel.configure(otlp_endpoint='{host.endpoint}/{name}', otlp_protocol='{HTTP}')"
            for name in ("first", "second")
        )
        once = "flow.options(workflow_id='q')()"
        done = program(host, f"{first}; {once}; {second}", sets_provider=False)

    assert f"not sent to {host.endpoint}/second/v1/traces, because they go to " in done.err
    assert f"{host.endpoint}/first/v1/traces. The log has them" in done.err
    assert host.paths == {"/first/v1/traces"}


def test_a_resume_gives_interrupted_spans_to_both_once(collectors: tuple[Choosy, Choosy]) -> None:
    theirs, ours = collectors
    killed = program(theirs, setting(ours), KILL="1")
    done = program(theirs, setting(ours), TAPPS_OTEL_SHUTDOWN_TIMEOUT="30")
    cut = {"workflow flow", "step work"}

    assert (killed.code, done.code, done.err) == (-signal.SIGKILL, 0, "")
    assert len(ours.ids) == len(set(ours.ids))
    assert len(theirs.ids) == len(set(theirs.ids))
    assert ours.accepted.count("workflow flow") == 2
    assert ours.accepted.count("step work") == 4
    assert theirs.accepted.count("workflow flow") == 2
    assert cut <= set(theirs.accepted)


@pytest.mark.slow
def test_a_collector_that_is_down_delays_the_exit_no_longer_and_is_told(
    collectors: tuple[Choosy, Choosy],
) -> None:
    theirs, _ = collectors
    nowhere = "tapps_otel.configure(otlp_endpoint='http://127.0.0.1:9', otlp_protocol='grpc')"
    done = program(theirs, nowhere, TAPPS_OTEL_SHUTDOWN_TIMEOUT="0.5")

    assert done.code == 0
    assert "7 of 7 spans were not sent to 127.0.0.1:9; the log has them" in done.err
    assert sorted(theirs.accepted) == ALL


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("otlp_headers={'a': 'b'}", "settings not used: otlp_headers. "),
        ("otlp_protocol='grpc'", "settings not used: otlp_protocol. "),
        ("service_name='ours'", "settings not used: service_name. "),
        ("service_name='theirs'", ""),
    ],
)
def test_settings_that_cannot_be_used_are_named_once(
    collectors: tuple[Choosy, Choosy], given: str, told: str
) -> None:
    theirs, _ = collectors
    again = "flow.options(workflow_id='q')()"
    done = program(theirs, f"tapps_otel.configure({given}); {again}")

    assert done.err.startswith(told)
    assert done.err.count("\n") == bool(told)


def test_a_provider_that_takes_no_processors_is_named(collectors: tuple[Choosy, Choosy]) -> None:
    theirs, ours = collectors
    noop = "trace._TRACER_PROVIDER = trace.NoOpTracerProvider()"
    done = program(theirs, f"{noop}; {setting(ours)}")

    assert done.code == 0
    assert "the tracer provider takes no processors" in done.err
    assert "`tapps-otel send` sends them" in done.err
    assert child("send", "r", "--json", **ours.env).code == 0
    assert ours.accepted.count("step work") == 3


def test_a_second_endpoint_is_not_used_and_that_is_told(
    collectors: tuple[Choosy, Choosy],
) -> None:
    theirs, ours = collectors
    first = f"{setting(ours)}; flow.options(workflow_id='q')()"
    second = "tapps_otel.configure(otlp_endpoint='http://127.0.0.1:9')"
    done = program(theirs, f"{first}; {second}")

    where = "http://127.0.0.1:9/v1/traces" if ours.protocol == HTTP else "127.0.0.1:9"
    assert f"spans of this process are not sent to {where}, because they go to " in done.err
    assert ours.accepted.count("workflow flow") == 2
