"""The ids of spans, in a program that seeds ``random``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.util._once import Once

from crashes import die, go, in_child
from tapps_otel import history, step, workflow
from tapps_otel.otel.delivery import provider
from tapps_otel.otel.process.shutdown import ExitFlush

DEAD = Path("dead")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[trace.TracerProvider | None], None]:
    """Make a provider the process's."""
    return lambda one: monkeypatch.setattr(trace, "_TRACER_PROVIDER", one)


@pytest.fixture
def built_here(monkeypatch: pytest.MonkeyPatch, install: Any) -> Iterator[None]:
    """A process whose provider is built by this package."""
    kept: list[ExitFlush[Any]] = []

    def keep(flush: ExitFlush[Any]) -> None:
        kept.append(flush)

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "tapps_jsonl")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(provider._setup, "_tried", False)
    monkeypatch.setattr(ExitFlush, "register", keep)
    install(None)
    yield
    for one in kept:
        one.request()
        one.wait(10)


@step
def seeded(number: int) -> int:
    random.seed(42)
    return number


@workflow
def seeds() -> int:
    random.seed(42)
    return seeded(1) + seeded(2) + seeded(3)


@step
def die_once() -> int:
    if not DEAD.exists():
        DEAD.touch()
        die()
    return 1


@workflow
def dying() -> int:
    return die_once()


def ids(workflow_id: str) -> list[str]:
    """The run's trace, and its spans."""
    found = history(workflow_id)
    attempts = [one for child in found.steps for one in child.attempts]
    of_executions = [str(one.span_id) for one in found.executions]
    return [str(found.trace_id), *of_executions, *(str(one.span_id) for one in attempts)]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What this package logged: asyncio may report a task of an earlier test."""
    return [one.getMessage() for one in caplog.records if one.name.startswith("tapps_otel.")]


@pytest.mark.usefixtures("built_here")
def test_no_seed_repeats_the_ids_of_a_provider_that_is_built_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go(seeds)
    go(seeds, workflow_id="again")
    made = ids("r") + ids("again")

    assert len(set(made)) == len(made) == 10
    assert isinstance(trace.get_tracer_provider(), TracerProvider)
    assert caplog.text == ""


def test_ids_that_the_programs_provider_repeats_cause_one_warning(
    install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install(TracerProvider(shutdown_on_exit=False))
    go(seeds)
    go(seeds, workflow_id="again")
    made = ids("r")

    assert len(set(made)) < len(made) == 5  # the SDK's generator
    (said,) = messages(caplog)
    assert said.startswith("run r: the program's tracer provider gave span id ")
    assert "random.seed()" in said


class Given(RandomIdGenerator):
    """Gives one id first."""

    def __init__(self, span_id: str) -> None:
        self._first = [int(span_id, 16)]

    def generate_span_id(self) -> int:
        return self._first.pop() if self._first else super().generate_span_id()


def test_an_id_of_an_earlier_execution_is_a_repeated_one(
    install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install(TracerProvider(shutdown_on_exit=False))
    in_child(lambda: go(dying))
    interrupted = ids("r")[-1]
    install(TracerProvider(id_generator=Given(interrupted), shutdown_on_exit=False))
    go(dying)
    (said,) = messages(caplog)

    assert f"gave span id {interrupted} to two spans" in said


CONFIGURED = """
from opentelemetry import trace
from tapps_otel import history, step, workflow
import random

@step
def seeded():
    random.seed(42)

@workflow
def seeds():
    seeded()
    seeded()
    seeded()

seeds.options(workflow_id="r")()
print(type(trace.get_tracer_provider()).__module__)
print(*[attempt.span_id for one in history("r").steps for attempt in one.attempts])
"""


@pytest.mark.slow
def test_no_seed_repeats_the_ids_of_a_provider_from_a_configuration_file() -> None:
    Path("otel.yaml").write_text(
        'file_format: "1.0"\ntracer_provider: {processors: [{simple: {exporter: {console: {}}}}]}\n'
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONFIGURED],
        env=os.environ | {"OTEL_CONFIG_FILE": "otel.yaml"},
        capture_output=True,
        text=True,
        check=True,
    )
    provider, made = done.stdout.splitlines()[-2:]

    assert provider == "opentelemetry.sdk.trace"
    assert len(set(made.split())) == 3
