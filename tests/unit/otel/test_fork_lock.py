"""Processes that are forked while another thread is setting OpenTelemetry up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

from capabilities import need
from tapps_otel.otel.delivery import provider as tracer_provider
from tapps_otel.otel.live import catch_up
from tapps_otel.otel.metrics import provider as meter_provider
from tapps_otel.otel.process.fork_lock import ForkLock
from tapps_otel.settings_model import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@contextmanager
def held(lock: ForkLock) -> Iterator[None]:
    """Another thread holds the lock: it has started what the lock guards, and is not done."""
    begun, over = threading.Event(), threading.Event()

    def begin() -> None:
        with lock:
            begun.set()
            over.wait()

    thread = threading.Thread(target=begin)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def in_child(body: Callable[[], object]) -> int:
    """A forked child's exit code: whether ``body`` holds there."""
    need("fork")
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        code = 99
        try:
            code = 0 if body() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_forked_while_spans_are_set_up_sets_up_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(tracer_provider._setup, "_tried", True)  # as that thread notes first
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")

    with held(tracer_provider._setup._lock):
        made = in_child(
            lambda: isinstance(tracer_provider.ensure_provider(Settings()), TracerProvider)
        )

    assert made == 0


def test_a_child_forked_while_metrics_are_set_up_sets_up_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "_METER_PROVIDER", None)
    monkeypatch.setattr(api, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(meter_provider._setup, "_tried", True)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")

    with held(meter_provider._setup._lock):
        made = in_child(
            lambda: isinstance(meter_provider.ensure_provider(Settings()), MeterProvider)
        )

    assert made == 0
    assert not isinstance(metrics.get_meter_provider(), MeterProvider)


def test_a_child_forked_while_a_run_catches_up_catches_up_by_itself(tmp_path: Path) -> None:
    def done() -> bool:
        catch_up.catch_up(tmp_path, "r", 2, None, 1)
        worker = catch_up._worker
        assert worker is not None
        worker.shutdown()
        return True

    with held(catch_up._lock):
        assert in_child(done) == 0
