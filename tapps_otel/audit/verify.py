"""The check of a run's log, by itself and against sent spans."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from tapps_otel.errors import LogDamagedError, LogError, LogVersionError, RunNotFoundError
from tapps_otel.log import reader
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.pulling import pull_if_reachable
from tapps_otel.log.tombstones import pruned_runs
from tapps_otel.names import NO_RUN, PRUNED
from tapps_otel.otel.replay.ledger import Confirmed, last_confirmed
from tapps_otel.run.lookup import find, store_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence
    from pathlib import Path

    from tapps_otel.audit.comparer import Comparer
    from tapps_otel.audit.comparison import Comparison
    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store

__all__ = ["VerifyReport", "verify", "verify_all"]

_TRACE: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of checking a run's log, its side logs, and the blobs that they name.

    :ivar log: the check of the log's chain
    :ivar problems: each with its place; empty for an intact log
    :ivar notes: what is worth knowing and is not damage
    :ivar beside: the checks of side logs, which other processes of the run wrote
    :ivar against: the comparison with sent spans; its problems are among ``problems``
    """

    workflow_id: str
    log: reader.CheckReport
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    beside: tuple[reader.CheckReport, ...] = ()
    against: Comparison | None = None

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def damaged(self) -> bool:
        """Whether the log itself has a problem, apart from any comparison."""
        found = 0 if self.against is None else len(list(self.against.problems))
        return len(self.problems) > found

    def raise_if_bad(self) -> None:
        """Raise the first problem.

        :raises LogDamagedError: a log was changed
        :raises LogError: a blob was changed, or the log and the spans differ
        """
        for one in (self.log, *self.beside):
            if not one.ok and one.region is not None:
                raise LogDamagedError(one.path, one.region.offset, one.seq + 1, one.region.problem)
        if self.problems:
            raise LogError(self.problems[0])


def verify(
    workflow_id: str, *, against: Path | str | None = None, log_dir: Path | str | None = None
) -> VerifyReport:
    """Check every byte of a run's log against its chain, and every blob against its name.

    Side logs are checked together with it. Lines cut off the log's end, or a log rewritten as a
    whole, are found only by what is kept elsewhere: the run's ledger, if spans were sent from the
    log, and a comparison with sent spans. Memory does not grow with the log; in a
    comparison it grows by a few hundred bytes a span.

    :param against: a file of OTLP JSON lines, or the address of a Jaeger
        (``http://localhost:16686``): every span of the log is looked up there, every span of the
        run there is looked up in the log, and so is the head that its workflow's spans record
    :raises RunNotFoundError: there is no such run
    :raises LogVersionError: the log has a newer format
    :raises SpansError: the spans to compare with cannot be read
    """
    store, workflow_id = find(workflow_id, log_dir)
    return _verify(store, workflow_id, store.side_paths().get(workflow_id, []), against)


def verify_all(
    *, against: Path | str | None = None, log_dir: Path | str | None = None
) -> Iterator[VerifyReport]:
    """Check every run of the folder, the one written to last first.

    A log that cannot be read yields a report with that problem.

    :raises SpansError: the spans to compare with cannot be read
    """
    store = store_of(log_dir)
    names = dict.fromkeys(one.workflow_id for one in store.runs())
    for name in names:
        pull_if_reachable(store, name)
    beside = store.side_paths()
    if store.has_log(PRUNED):
        names[PRUNED] = None
    for name in (*names, *sorted(beside.keys() - names)):
        try:
            yield _verify(store, name, beside.get(name, []), against)
        except RunNotFoundError:  # removed since it was listed
            continue
        except (LogVersionError, OSError) as error:
            yield VerifyReport(name, _no_log(store.log_path(name)), (str(error),), ())


def _verify(
    store: Store, workflow_id: str, beside: Sequence[Path], against: Path | str | None
) -> VerifyReport:
    if not beside:
        store.summary(workflow_id)  # raises for a file that is not a log
    comparer = None if against is None else _comparer(store, workflow_id, str(against))
    check = _Check(store, workflow_id)
    seqs = set() if comparer is None else {head.seq for head in comparer.heads}
    log = check.own_log(seqs, alone=not beside)
    checked = tuple(check.log(path, f"{path.name}: ") for path in beside)
    check.blobs()
    compared = None
    if comparer is not None:
        compared = comparer.compare(store, beside)
        compared.seq, compared.told, compared.shas = log.seq, check.told, check.shas
        check.problems += compared.problems
        check.notes += compared.notes
    return VerifyReport(
        workflow_id, log, tuple(check.problems), tuple(check.notes), checked, compared
    )


def _comparer(store: Store, workflow_id: str, against: str) -> Comparer:
    # They import OpenTelemetry, which a check without a comparison does not need.
    from tapps_otel.audit.comparer import Comparer
    from tapps_otel.audit.jaeger_store import JaegerStore
    from tapps_otel.audit.span_stores import FileStore

    trace_id = _trace_of(store, workflow_id)
    is_url = against.lower().startswith(("http://", "https://"))
    spans = JaegerStore(against, trace_id) if is_url else FileStore(against)
    return Comparer(spans, workflow_id, trace_id)


def _trace_of(store: Store, workflow_id: str) -> str | None:
    """Return the run's trace id, from the first line that has it."""
    try:
        for event in reader.read(store.log_path(workflow_id), workflow_id):
            if event.trace_id is not UNSET and _TRACE.fullmatch(event.trace_id):
                return event.trace_id
    except (FileNotFoundError, LogDamagedError):  # the check of the chain reports it
        pass
    return None


class _Check:
    """A check of a run's log and side logs.

    :ivar shas: of the requested lines of the run's own log, by their ``seq``
    :ivar told: ``seq`` of the own log's last line that is not a captured span
    """

    def __init__(self, store: Store, workflow_id: str) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.shas: dict[int, str] = {}
        self.told = 0
        self._store, self._id = store, workflow_id
        self._blobs: dict[str, str] = {}  # with the place of their first mention
        self._confirmed = self._read_ledger()

    def _read_ledger(self) -> dict[str, Confirmed]:
        path = self._store.ledger_path(self._id)
        try:
            return last_confirmed(path)
        except OSError as error:
            self.notes.append(f"{path}: cannot be read: {error.strerror or error}")
            return {}

    def own_log(self, seqs: Container[int], *, alone: bool) -> reader.CheckReport:
        path = self._store.log_path(self._id)
        try:
            return self.log(path, "", seqs)
        except FileNotFoundError:
            if alone:  # it was removed a moment ago
                raise self._store.not_found(self._id) from None
            if self._id == NO_RUN:
                self.notes.append("traces of no run, which are in side logs")
            elif self._id in pruned_runs(self._store):
                self.notes.append("the run was pruned; a process has written side logs since")
            else:
                self.problems.append(f"{path} does not exist: there are only its side logs")
            return _no_log(path)

    def log(self, path: Path, prefix: str, seqs: Container[int] = ()) -> reader.CheckReport:
        """Check the chain of one log.

        :param prefix: of its messages; empty for the run's own
        """
        confirmed = self._confirmed.get(path.name)
        sha_there = None  # of the line that a collector has confirmed

        def note(event: Event, sha: bytes) -> None:
            nonlocal sha_there
            if confirmed is not None and event.seq == confirmed.seq:
                sha_there = sha.decode()
            for name in (event.inputs_blob, event.result_blob, event.otel_blob):
                if isinstance(name, str):
                    self._blobs.setdefault(name, f"{prefix}seq {event.seq}")
            if event.seq in seqs:
                self.shas[event.seq] = sha.decode()
            if not prefix and event.event_type != "span":
                self.told = event.seq

        found = reader.check(path, self._id, on_event=note)
        region = found.region
        if region is not None:
            place = (
                f"{prefix}byte {region.offset}, where seq {found.seq + 1} was expected: "
                f"{region.problem}"
            )
            if region.torn:
                why = "a crash interrupted the write, or it is being written"
                self.notes.append(f"unfinished end at {place}: {why}")
            else:
                self.problems.append(place)
        if confirmed is not None and (region is None or region.torn):
            self._compare_with_ledger(confirmed, sha_there, found.seq, prefix)
        self.notes += [
            f"{prefix}declared damage: {length} bytes at byte {at}" for at, length in found.repairs
        ]
        return found

    def _compare_with_ledger(
        self, confirmed: Confirmed, sha: str | None, last: int, prefix: str
    ) -> None:
        """Report lines from which spans were sent, and which the log no longer has.

        :param sha: of its line with that ``seq``, if it has one
        :param last: ``seq`` of its last line
        """
        if sha == confirmed.sha:
            return
        what = "was rewritten" if sha else f"was cut off at its end: it ends at seq {last}"
        self.problems.append(
            f"{prefix}the log {what}, and the ledger records that {confirmed.destination} "
            f"confirmed its spans up to seq {confirmed.seq} with the sha {confirmed.sha:.64}. "
            "Restore the log from a copy before the run is resumed"
        )

    def blobs(self) -> None:
        stored = Blobs(self._store.blobs_folder(self._id))
        for name, place in self._blobs.items():
            try:
                stored.check(name)
            except LogError as error:
                self.problems.append(f"{place}: {error}")


def _no_log(path: Path) -> reader.CheckReport:
    return reader.CheckReport(path, 0, "", 0, (), None)
