"""An exporter that writes spans of libraries into the logs of runs.

It is used like any other: by ``OTEL_TRACES_EXPORTER=otlp,tapps_jsonl``, in a configuration file by
``batch: {exporter: {tapps_jsonl: {log_dir: ...}}}``, in code by
``BatchSpanProcessor(JsonlSpanExporter())``. The run of a span is found by its trace
(``run_registry.py``); ``router.py`` decides on the file.

Our own spans are in the log already. One whose lines the log lost while it could not be written is
written whole, as a late ``span`` event: late events of steps would lack digest and result, and
mislead a resume.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tapps_otel import settings
from tapps_otel.log.event import EVENT_TYPES
from tapps_otel.names import ATTR, NO_RUN, is_workflow_id
from tapps_otel.otel import propagation
from tapps_otel.otel.capture import claims
from tapps_otel.otel.capture.failure_log import FailureLog
from tapps_otel.otel.capture.router import Router
from tapps_otel.otel.capture.tokens import token_counter
from tapps_otel.otel.mapping.owner import is_cut_off, is_marker, own_run_id, run_of
from tapps_otel.otel.run_registry import KnownRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.settings_model import Settings
    from tapps_otel.settings_types import Durability

__all__ = ["JsonlSpanExporter"]

_MOST_PENDING: Final = 2048  # our own spans whose lines wait for a log that cannot be written


class JsonlSpanExporter(SpanExporter):
    """Writes the spans of libraries (HTTP, databases, models) into the logs of runs.

    A span is written, and synced (not with durability ``os``), before ``export`` returns
    ``SUCCESS``. What cannot be written is logged as an error and missing in the run's log; nothing
    is raised, and memory holds one batch. Spans of runs and steps are written only if the log lacks
    them.

    :param log_dir: folder for traces that belong to no run; by default that of the settings
    :param only_runs: ignore traces that belong to no run
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None = None, *, only_runs: bool = False
    ) -> None:
        self._folder = None if log_dir is None else Path(log_dir).absolute()
        self._only_runs = only_runs
        self._failures, self._closed = FailureLog(), False
        self._reset()
        propagation.join()

    def _reset(self) -> None:
        """Start afresh, also in a forked child: open logs are the parent's."""
        self._pid = os.getpid()
        self._router, self._tokens = Router(), token_counter()
        self._pending: deque[ReadableSpan] = deque(maxlen=_MOST_PENDING)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write a batch; ``SUCCESS`` only if all of it is in a log."""
        if self._closed:
            return SpanExportResult.FAILURE
        if self._pid != os.getpid():
            self._reset()
        return self._export(spans)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's
        """Do nothing: ``export`` writes before it returns."""
        return True

    def shutdown(self) -> None:
        """Write the pending spans, and close the logs."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        if self._pending:
            self._export(())
        self._router.close()

    def _export(self, spans: Iterable[ReadableSpan]) -> SpanExportResult:
        try:
            config = settings.current()
            if not config.enabled or self._write(spans, config):
                self._failures.worked()
                return SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - an exporter must not harm a workflow
            self._failures.failed(error)
        return SpanExportResult.FAILURE

    def _write(self, spans: Iterable[ReadableSpan], config: Settings) -> bool:
        """Write the spans that no log has; whether all of them could be written."""
        libraries, missing = self._sort(spans, self._folder or config.log_dir.absolute())
        done = True
        for run, of_run in libraries.items():
            if run.log_name != NO_RUN:
                self._tokens.count(run, of_run)
        for write, by_run in (
            (self._write_libraries, libraries),
            (self._router.write_missing, missing),
        ):
            for run, of_run in by_run.items():
                try:
                    write(run, of_run, config.durability)
                except Exception as error:  # noqa: BLE001 - the spans of other runs are written
                    self._failures.failed(error)
                    done = False
        return done

    def _write_libraries(
        self, run: KnownRun, spans: Sequence[ReadableSpan], durability: Durability
    ) -> None:
        written = self._router.write(run, spans, durability)
        for span in written.lost:
            claims.release(run, span)
        if written.problem is not None:
            raise written.problem

    def _sort(self, spans: Iterable[ReadableSpan], folder: Path) -> tuple[_ByRun, _ByRun]:
        """Return spans of libraries by run, and our own that the log may lack."""
        libraries: _ByRun = {}
        missing: _ByRun = {}
        by_name: dict[str, KnownRun] = {}
        pending, self._pending = self._pending, deque(maxlen=_MOST_PENDING)
        for span in (*pending, *spans):
            own, run = own_run_id(span), run_of(span)
            if is_marker(span) or (own and run is not None and _is_in_log(span)):
                continue
            if run is None:
                name = own if own is not None and is_workflow_id(own) else NO_RUN
                if name == NO_RUN and self._only_runs:
                    continue
                run = by_name.setdefault(name, KnownRun(name, folder, _execution_of(span), 0))
            if own is None:
                if run.workflow_id == NO_RUN or (not is_cut_off(span) and claims.claim(run, span)):
                    libraries.setdefault(run, []).append(span)
            elif run.pid == os.getpid() and run.ended_ns is None and not self._closed:
                self._pending.append(span)  # its lines wait, and may still be written
            else:
                missing.setdefault(run, []).append(span)
        return libraries, missing


_ByRun = dict[KnownRun, list["ReadableSpan"]]


def _is_in_log(span: ReadableSpan) -> bool:
    """Whether every event of our own span has a number, given with its line.

    Events that came while the log could not be written have none.
    """
    own = [event for event in span.events if event.name in EVENT_TYPES]
    return bool(own) and all(ATTR.SEQ in (event.attributes or ()) for event in own)


def _execution_of(span: ReadableSpan) -> int:
    found = (span.attributes or {}).get(ATTR.EXECUTION)
    return found if isinstance(found, int) else 1
