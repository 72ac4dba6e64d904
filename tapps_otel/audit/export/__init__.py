"""A run in the formats of other programs: OTLP JSON Lines, Trace Event Format, CSV.

An export reads the log as a stream, in flat memory, and takes no lock: a run that is being carried
on is exported as far as it has ended.
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

    ``otlp-json`` and ``chrome-trace`` hold the run's spans, as far as they have ended, or were cut
    short by a crash; ``csv`` holds the log's events. Logs that other processes of the run wrote
    beside it come after its own. The text has no lone surrogates, and nothing in it drives a
    terminal. Where an error ends it, what came before is whole in its format.

    :ivar store: the folder of logs
    :ivar form: its format
    :raises ValueError: there is no such format
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the place of the damage, after what stands before it
    :raises LogVersionError: a newer format, likewise
    """

    def __init__(self, store: Store, workflow_id: str, form: Format) -> None:
        if form not in FORMATS:
            raise ValueError(f"{form!r} is none of {', '.join(FORMATS)}")
        self.form = form
        self.store, self._id = store, workflow_id
        self._outcome = Outcome()
        self._trace = ChromeTrace(self._outcome)
        seen = self._trace.see if form == "chrome-trace" else None
        self._spans = RunSpans(store, workflow_id, seen=seen)

    @property
    def count(self) -> int:
        """Spans, or rows, so far."""
        return self._outcome.count

    @property
    def problems(self) -> list[str]:
        """What could not be written, each with its place; at most some hundreds."""
        return [*self._spans.problems, *self._outcome.problems]

    @property
    def running(self) -> bool:
        """Whether spans are left out that are open, since somebody carries the run on."""
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
        """The run's own log, if it is there and one of ours, and those beside it."""
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
    """Write an export to a private file (0600), which stands under its name once it is whole.

    Where the log is damaged, what comes before the damage is put in place all the same.

    :param replace: also where there is a file of that name; never in the folder of the logs
    :raises FileExistsError: there is one
    :raises LogError: the log is damaged, or of a newer format; there is a file if anything stands
        before that
    :raises OSError: the file cannot be written
    """
    files = _files.system()
    may_replace = replace and not files.is_same(path.parent, export.store.folder)
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
