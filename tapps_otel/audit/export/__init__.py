"""A run in the formats of other programs: OTLP JSON Lines, Trace Event Format, CSV.

An export streams the log in constant memory and takes no lock. Of a run in progress it has what
has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from tapps_otel.audit.export import otlp_json, table
from tapps_otel.audit.export.chrome_trace import ChromeTrace
from tapps_otel.audit.export.outcome import Outcome
from tapps_otel.errors import LogError, RunNotFoundError
from tapps_otel.log import files as _files
from tapps_otel.log.reader import read
from tapps_otel.otel.replay.run_spans import RunSpans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store

__all__ = ["FORMATS", "Export", "Format", "save"]

Format = Literal["otlp-json", "chrome-trace", "csv"]
FORMATS: Final = get_args(Format)


class Export:
    """A run in one of the formats: iterate once for its text, piece by piece.

    ``otlp-json`` and ``chrome-trace`` hold the run's spans that have ended or were interrupted by a
    crash; ``csv`` holds the log's events. Side logs, which other processes of the run wrote, come
    after its own log. The text has no lone surrogates and no control sequences for terminals. If an
    error ends the iteration, the text before it is complete in its format.

    :ivar store: the folder of logs
    :ivar form: its format
    :raises ValueError: there is no such format
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: after the text of what is before the damage
    :raises LogVersionError: a log has a newer format; likewise
    """

    def __init__(self, store: Store, workflow_id: str, form: Format) -> None:
        if form not in FORMATS:
            raise ValueError(f"{form!r} is not one of {', '.join(FORMATS)}")
        self.form = form
        self.store, self._id = store, workflow_id
        self._outcome = Outcome()
        self._trace = ChromeTrace(self._outcome)
        seen = self._trace.see if form == "chrome-trace" else None
        self._spans = RunSpans(store, workflow_id, seen=seen)

    @property
    def count(self) -> int:
        """Number of spans or rows so far."""
        return self._outcome.count

    @property
    def problems(self) -> list[str]:
        """What could not be written, each with its place; a few hundred at most."""
        return [*self._spans.problems, *self._outcome.problems]

    @property
    def running(self) -> bool:
        """Whether open spans were left out because the run is in progress."""
        return self._spans.running

    def __iter__(self) -> Iterator[str]:
        logs = self._logs()
        if self.form == "csv":
            yield from table.rows(self._events(logs), self._outcome)
        elif self.form == "otlp-json":
            yield from otlp_json.lines(self._spans, self._outcome)
        else:
            yield from self._trace.pieces(self._spans)

    def _logs(self) -> list[Path]:
        """Return the run's own log if there is one, and its side logs."""
        beside = self.store.side_paths().get(self._id, [])
        try:
            self.store.summary(self._id)
        except RunNotFoundError:
            if not beside:
                raise
            return beside
        return [self.store.log_path(self._id), *beside]

    def _events(self, logs: Iterable[Path]) -> Iterator[tuple[str, Event]]:
        return ((path.name, event) for path in logs for event in read(path, self._id))


def save(export: Export, path: Path, *, replace: bool = False) -> None:
    """Write an export to a private file (0600), which has its name only once it is complete.

    Of a damaged log, the file has what comes before the damage.

    :param replace: replace a file of that name, but never one in the folder of the logs
    :raises FileExistsError: there is a file of that name
    :raises LogError: the log is damaged or of a newer format; the file is written if anything comes
        before that
    :raises OSError: the file cannot be written
    """
    files = _files.system()
    may_replace = replace and not files.is_same_file(path.parent, export.store.folder)
    damage = None
    with files.new_file(path, replace=may_replace, sync=True) as descriptor:
        try:
            with files.writer(descriptor) as file:
                for piece in export:
                    file.write(piece.encode())
        except LogError as error:
            if not export.count:
                raise
            damage = error
    if damage is not None:
        raise damage
