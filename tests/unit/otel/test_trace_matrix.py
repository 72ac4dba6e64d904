"""Programs with an exporter of their own, with each kind of collector, in each kind of run.

Libraries set the provider up; most are in the extra `providers`. In each case one trace arrives
with every span once, or one sentence names the command that delivers what is missing, and that
command does so.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import pytest

import tapps_otel
from choosy_collector import Choosy, choosy
from effort import sample
from otlp_collector import KILLED
from tapps_otel.errors import TappsError

MODEL = "chat a-model"  # the span of a library, which a collector may refuse
EXPORT = """
import os
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor
exporting = BatchSpanProcessor(
    OTLPSpanExporter(os.environ["HERE"] + "/v1/traces", timeout=1), schedule_delay_millis=50
)
"""
SDK = """
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
provider.add_span_processor(exporting)
trace.set_tracer_provider(provider)
"""


class Provider(NamedTuple):
    """How a program sets up its tracing: its code, and the library that it needs."""

    code: str
    needs: str | None = None


PROVIDERS = {
    "SDK": Provider(EXPORT + SDK),
    "wrapped": Provider(
        EXPORT
        + SDK.replace("opentelemetry.sdk.trace import", "openinference.instrumentation import"),
        needs="openinference.instrumentation",
    ),
    "Phoenix": Provider(
        EXPORT
        + "from phoenix.otel import register\n"
        + 'register(endpoint=os.environ["HERE"] + "/v1/traces", verbose=False, batch=True)\n',
        needs="phoenix.otel",
    ),
    "Logfire": Provider(
        EXPORT
        + "import logfire\n"
        + "logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False,\n"
        + "                  additional_span_processors=[exporting])\n",
        needs="logfire",
    ),
}
PROGRAM = """
import os, sys
from opentelemetry import trace
SET_UP
from tapps_otel import step, workflow

@step
def first():
    return 1

@step
def ask():
    about = {"gen_ai.request.model": "a-model"}
    with trace.get_tracer("a.model").start_as_current_span("chat a-model", attributes=about):
        if sys.argv[1] == "dies":
            os.kill(os.getpid(), 9)
    return 2

@workflow
def main():
    return first() + ask()

main.options(workflow_id="r")()
"""
COLLECTORS = ("up", "down", "refusing", "hanging")
RUNS = ("plain", "killed and sent", "killed and resumed")
# Spans of the log in each kind of run: two steps, a model call and the workflow, each execution.
PLAIN = Counter({"workflow main": 1, "step first": 1, "step ask": 1, MODEL: 1})
RESUMED = PLAIN + Counter({"workflow main": 1, "step ask": 1, MODEL: 1})


@contextmanager
def endpoint(kind: str) -> Iterator[tuple[str, Choosy | None]]:
    """The address of a collector, and what it was sent."""
    if kind in {"up", "refusing"}:
        poison = (lambda span: span.name == MODEL) if kind == "refusing" else (lambda _: False)
        with choosy("http/protobuf", poison) as made:
            yield made.endpoint, made
    else:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            if kind == "hanging":  # it accepts, and never answers
                bound.listen(64)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}", None


def need(library: str | None) -> None:
    try:
        found = library is None or importlib.util.find_spec(library)
    except ModuleNotFoundError:
        found = None
    if not found:
        pytest.skip(f"needs {library}: install the extra 'providers'")


def run(provider: Provider, here: str, what: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace("SET_UP", provider.code)
    env = {
        "HERE": here,
        "OTEL_EXPORTER_OTLP_ENDPOINT": here,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_TRACES_EXPORTER": "otlp,tapps_jsonl",
        "TAPPS_OTEL_SHUTDOWN_TIMEOUT": "1",
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, what],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def sent(here: str, **options: Any) -> tuple[int, list[str]]:
    """Do as `tapps-otel send r`: spans that were accepted, and the sentences that it says."""
    try:
        report = tapps_otel.send("r", endpoint=here, protocol="http/protobuf", **options)
    except TappsError as error:
        return 0, [str(error)]
    return report.sent, report.problems


def names_of(collector: Choosy) -> Counter[str]:
    """The spans of the run that it has, each id once.

    An exporter of the program's own keeps no ledger: `send` sends its spans again, as they were.
    """
    by_id = dict(zip(collector.ids, collector.accepted, strict=True))
    return Counter(name for name in by_id.values() if name in RESUMED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "collector", "runs"), sample(product(PROVIDERS, COLLECTORS, RUNS), 8)
)
def test_each_span_arrives_once_or_a_sentence_says_how(
    provider: str, collector: str, runs: str
) -> None:
    made = PROVIDERS[provider]
    need(made.needs)
    with endpoint(collector) as (here, came):
        said = []
        if runs != "plain":
            died = run(made, here, "dies")
            assert died.returncode == KILLED, died.stderr
            said.append(died.stderr)
        if runs != "killed and sent":
            done = run(made, here, "lives")
            assert done.returncode == 0, done.stderr
            said.append(done.stderr)
        _, problems = sent(here)
        said += problems
        has = PLAIN if runs in {"plain", "killed and sent"} else RESUMED
        refused = has & Counter({MODEL: 9}) if collector == "refusing" else Counter[str]()
        if came is not None:
            assert names_of(came) == has - refused
    if refused or came is None:
        sentences = ("tapps-otel send", "was refused", "cannot send spans")
        assert any(sentence in one for sentence in sentences for one in said), said
    with choosy("http/protobuf", lambda _: False) as healthy:
        number, problems = sent(healthy.endpoint, force=True)
        assert (number, problems) == (has.total(), [])
        assert names_of(healthy) == has
        assert len(healthy.ids) == number
