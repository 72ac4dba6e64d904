"""The local file side of a trace: spans of libraries, written into the logs of their runs.

An ordinary exporter: ``OTEL_TRACES_EXPORTER=otlp,tapps_jsonl``, in a configuration file ``batch:
{exporter: {tapps_jsonl: {log_dir: ...}}}``, or ``BatchSpanProcessor(JsonlSpanExporter())``. Which
run a span is of says its trace (``known.py``), where it goes ``keeping.py``.

Our own spans are in the log already. One whose lines the log lost while it could not be written is
written whole, as a late ``span``: as events of steps they would lack digest and result, and mislead
a resume.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tapps_otel import settings
from tapps_otel.log.event import EVENT_TYPES
from tapps_otel.names import ATTR, NO_RUN, is_workflow_id
from tapps_otel.otel import propagation
from tapps_otel.otel.capture.router import Keeper
from tapps_otel.otel.mapping.owner import is_marker, own_run_id, run_of
from tapps_otel.otel.run_registry import KnownRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.settings import Settings

__all__ = ["JsonlSpanExporter"]

_MOST_HELD: Final = 2048  # spans of ours whose lines wait for a log that cannot be written
_log = logging.getLogger(__name__)


class JsonlSpanExporter(SpanExporter):
    """Writes the spans of libraries (HTTP, databases, models) into the logs of runs.

    A span is written, and synced (not with durability ``os``), before ``export`` returns
    ``SUCCESS``. What cannot be written is said, and lost to the log alone: nothing is raised, and
    memory holds one batch. Given a span of a run or a step, it writes nothing that the log has.

    :param log_dir: folder for traces of no run; else the setting's
    :param only_runs: pass over traces of no run
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None = None, *, only_runs: bool = False
    ) -> None:
        self._folder = None if log_dir is None else Path(log_dir).absolute()
        self._only_runs = only_runs
        self._failing = self._closed = False
        self._begin()
        propagation.join()

    def _begin(self) -> None:
        """In a forked child once more: what is open, or held back, is the parent's."""
        self._pid = os.getpid()
        self._keeper = Keeper()
        self._held: deque[ReadableSpan] = deque(maxlen=_MOST_HELD)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write a batch; ``SUCCESS`` only if all of it is in a log."""
        if self._closed:
            return SpanExportResult.FAILURE
        if self._pid != os.getpid():
            self._begin()
        return self._export(spans)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the SDK's
        """Nothing waits here."""
        return True

    def shutdown(self) -> None:
        """Write what was held back, and close the logs."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        if self._held:
            self._export(())
        self._keeper.close()

    def _export(self, spans: Iterable[ReadableSpan]) -> SpanExportResult:
        try:
            config = settings.current()
            if not config.enabled or self._write(spans, config):
                self._failing = False
                return SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - no workflow is harmed by its exporter
            self._complain(error)
        return SpanExportResult.FAILURE

    def _write(self, spans: Iterable[ReadableSpan], config: Settings) -> bool:
        """Write what is in no log yet; whether all of it could be."""
        libraries, missing = self._sorted(spans, self._folder or config.log_dir.absolute())
        done = True
        for keep, by_run in (
            (self._keeper.keep, libraries),
            (self._keeper.keep_missing, missing),
        ):
            for run, of_run in by_run.items():
                try:
                    keep(run, of_run, config.durability)
                except Exception as error:  # noqa: BLE001 - the other runs' are not lost for it
                    self._complain(error)
                    done = False
        return done

    def _sorted(self, spans: Iterable[ReadableSpan], folder: Path) -> tuple[_ByRun, _ByRun]:
        """Spans of libraries, and those of ours that the log may lack."""
        libraries: _ByRun = {}
        missing: _ByRun = {}
        by_name: dict[str, KnownRun] = {}
        held, self._held = self._held, deque(maxlen=_MOST_HELD)
        for span in (*held, *spans):
            own, run = own_run_id(span), run_of(span)
            if is_marker(span) or (own and run is not None and _is_told(span)):
                continue
            if run is None:
                name = own if own is not None and is_workflow_id(own) else NO_RUN
                if name == NO_RUN and self._only_runs:
                    continue
                run = by_name.setdefault(name, KnownRun(name, folder, _execution_of(span), 0))
            if own is None:
                libraries.setdefault(run, []).append(span)
            elif run.pid == os.getpid() and run.ended_ns is None and not self._closed:
                self._held.append(span)  # its lines wait, and may be written when the log can be
            else:
                missing.setdefault(run, []).append(span)
        return libraries, missing

    def _complain(self, error: Exception) -> None:
        """Say that something is not written; loudly once, until all goes well again."""
        level = logging.DEBUG if self._failing else logging.ERROR
        self._failing = True
        _log.log(level, "spans are missing in a log: %s: %s", type(error).__qualname__, error)


_ByRun = dict[KnownRun, list["ReadableSpan"]]


def _is_told(span: ReadableSpan) -> bool:
    """Whether every event of a span of ours has the number that it gets when its line is written.

    Without one are those that came while the log could not be written.
    """
    own = [event for event in span.events if event.name in EVENT_TYPES]
    return bool(own) and all(ATTR.SEQ in (event.attributes or ()) for event in own)


def _execution_of(span: ReadableSpan) -> int:
    found = (span.attributes or {}).get(ATTR.EXECUTION)
    return found if isinstance(found, int) else 1
