"""Spans of libraries in a worker: they join the trace of the step that it executes."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as contexts

from tapps_otel.otel.delivery.provider import ensure_provider
from tapps_otel.otel.delivery.span_starts import add_span_starts
from tapps_otel.otel.process_end import flush_at_end
from tapps_otel.otel.propagation import context_of
from tapps_otel.otel.seam import warn_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tapps_otel.settings_model import Settings

__all__ = ["flush_soon", "joined", "prepare"]


def prepare(settings: Settings) -> None:
    """Let spans of libraries be written to the runs that are known here.

    The provider of the process is built if it has none and one is asked for.
    """
    try:
        provider = ensure_provider(settings)
        if provider is not None:
            add_span_starts(provider)
            _flusher.watch(provider, settings.shutdown_timeout)
    except Exception as error:  # noqa: BLE001 - a provider of another library
        warn_once("the spans of a worker", error)


@contextmanager
def joined(environment: Mapping[str, str]) -> Iterator[None]:
    """Make the context that the driver wrote the current one."""
    try:
        context = context_of(environment)
    except Exception as error:  # noqa: BLE001 - a propagator of the user's
        warn_once("the context of a step", error)
        context = contexts.get_current()
    token = contexts.attach(context)
    try:
        yield
    finally:
        contexts.detach(token)


def flush_soon() -> None:
    """Send the spans that have ended, in the background.

    A pool may end its workers at any time, and a worker that was forked calls no handlers then.
    """
    _flusher.request()


class _Flusher:
    """The thread that flushes the provider of a worker."""

    def __init__(self) -> None:
        self._provider: Any = None
        self._pid = 0

    def watch(self, provider: Any, timeout: float) -> None:
        """Flush this provider from now on, at last when the process ends."""
        if self._provider is provider and self._pid == os.getpid():
            return
        if not self._pid:
            flush_at_end(self._finish)
        self._provider, self._pid, self._timeout = provider, os.getpid(), timeout
        self._requests = SimpleQueue[threading.Event]()
        threading.Thread(target=self._work, name="tapps_otel-flush", daemon=True).start()

    def request(self) -> threading.Event:
        """Flush in the background; return what is set once that is done."""
        done = threading.Event()
        self._requests.put(done)
        return done

    def _finish(self) -> None:
        if self._pid == os.getpid():
            self.request().wait(self._timeout)

    def _work(self) -> None:
        while True:
            waiting = [self._requests.get()]
            while not self._requests.empty():
                waiting.append(self._requests.get())
            try:
                self._provider.force_flush()
            except Exception as error:  # noqa: BLE001 - of an exporter
                warn_once("flush", error)
            for done in waiting:
                done.set()


_flusher: Final = _Flusher()
