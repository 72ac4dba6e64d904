"""Sending a run's spans from its log: what a collector has not confirmed yet, and nothing twice.

Delivery is at least once: a process that dies between a collector's answer and the ledger's line
sends the same spans again, with the same ids and the same bytes.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tapps_otel import settings
from tapps_otel.errors import LedgerError, LogError, SettingsError
from tapps_otel.log.tail import head_of
from tapps_otel.otel.replay.digests import Digests
from tapps_otel.otel.replay.ledger import Ledger, Whole
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.transport.client import connect
from tapps_otel.otel.transport.destination import destination
from tapps_otel.otel.transport.encoding import MOST_SPANS, encoded, id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tapps_otel.log.store import Store
    from tapps_otel.otel.replay.run_spans import Found
    from tapps_otel.otel.transport.client import Answer, Client
    from tapps_otel.otel.transport.encoding import Request

__all__ = ["SendReport", "Sender", "batches", "client_of", "send_run"]


@dataclass(slots=True)
class SendReport:
    """What became of a run's spans.

    :ivar destination: protocol and address of the collector
    :ivar sent: spans that it took now
    :ivar confirmed: spans that it had taken before
    :ivar rejected: spans that it refused for good
    :ivar differing: spans that it had confirmed with other content; they were not sent
    :ivar seq: of the line of the run's log up to which spans were dealt with
    :ivar running: the run is being carried on, and what is open will be sent later
    :ivar problems: what went wrong, in words
    """

    workflow_id: str
    destination: str
    sent: int = 0
    confirmed: int = 0
    rejected: int = 0
    differing: int = 0
    seq: int = 0
    running: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Everything that has ended is with the collector."""
        return not self.problems


def client_of(*, endpoint: str | None = None, protocol: str | None = None) -> Client:
    """A client of the collector that arguments, settings or standard variables name.

    :raises SettingsError: none of them does
    """
    found = destination(settings.current(), endpoint=endpoint, protocol=protocol)
    if found is None:
        raise SettingsError(
            "no collector is named: set OTEL_EXPORTER_OTLP_ENDPOINT (as http://localhost:4317), or "
            "give one by configure(otlp_endpoint=...) or `tapps-otel send --endpoint`"
        )
    return connect(found)


def send_run(
    store: Store,
    workflow_id: str,
    client: Client,
    *,
    force: bool = False,
    before: int | None = None,
    beside: Sequence[Path] | None = None,
    report: SendReport | None = None,
    progress: Callable[[SendReport], None] = lambda _: None,
    patience: float | None = None,
) -> SendReport:
    """Send what the collector has not confirmed. The log is streamed: memory does not grow with it.

    A log that has not grown since all of it was confirmed is not read again.

    :param force: send everything, confirmed or not
    :param before: only what belongs to executions before this one
    :param beside: logs beside the run's, where the caller knows them
    :param report: filled in as it goes, for callers that want to know of it after an error too
    :param progress: called at the start and after each answer, with the report so far
    :param patience: for how long a request is tried again, seconds
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the place of the damage; what stands before it was sent
    :raises LedgerError: the ledger tells of lines that the log does not have; nothing is sent
        from there on
    :raises SendError: the collector could not be reached, or refused; what it had confirmed by
        then is in the ledger
    """
    report = report or SendReport(workflow_id, client.destination.name)
    sender = Sender(store, report, client, force=force, patience=patience)
    if beside is None:
        beside = store.side_paths().get(workflow_id, [])
    done = sender.look_at([store.log_path(workflow_id), *beside])
    spans = RunSpans(store, workflow_id, beside=beside, before=before, skip=done)
    progress(report)
    try:
        for batch in batches(sender.new(spans)):
            sender.send(batch)
            progress(report)
        if before is None:
            sender.finish(spans.ends)
    finally:
        report.running = spans.running
        report.problems += spans.problems
    return report


def batches(spans: Iterable[Found], most: int = MOST_SPANS) -> Iterator[list[Found]]:
    """Spans in lists of at most so many; before an error of the log, those that stood before it.

    :raises LogError: as ``spans`` does
    """
    batch: list[Found] = []
    try:
        for found in spans:
            batch.append(found)
            if len(batch) == most:
                yield batch
                batch = []
    except LedgerError:
        raise  # log and ledger disagree: nothing more is sent
    except LogError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


class Sender:
    """Sends batches of one run to one collector, and keeps the ledger.

    :param patience: for how long a request is tried again, seconds
    """

    def __init__(
        self,
        store: Store,
        report: SendReport,
        client: Client,
        *,
        force: bool = False,
        patience: float | None = None,
    ) -> None:
        name = client.destination.name
        self.report = report
        self._client, self._patience, self._force = client, patience, force
        self._ledger = Ledger(store.ledger_path(report.workflow_id), name)
        if not force:
            self._ledger.read()
        # Marks that the log has yet to bear out, and logs of which not everything was taken.
        self._due = dict(self._ledger.marks)
        self._broken: set[str] = set()
        self._found: Counter[str] = Counter()

    @cached_property
    def _digests(self) -> Digests:
        """What was confirmed span by span; read where a log has to be read, and not before."""
        return Digests() if self._force else self._ledger.spans()

    def look_at(self, paths: Iterable[Path]) -> set[str]:
        """Take in which logs there are; one beside the run's may have been removed since.

        :returns: names of those that stand as they did when all of them was confirmed
        """
        names, done = set(), set()
        for path in paths:
            names.add(path.name)
            whole = self._ledger.wholes.get(path.name)
            if whole is not None and self._ends_with(path, whole):
                done.add(path.name)
                self.report.confirmed += whole.spans
                self.report.seq = max(self.report.seq, whole.seq)
        self._due = {log: mark for log, mark in self._due.items() if log in names - done}
        return done

    def _ends_with(self, path: Path, whole: Whole) -> bool:
        if whole.seq < self._ledger.marks.get(path.name, (0, ""))[0]:
            return False  # more was confirmed since: it was cut
        try:
            return head_of(path, self.report.workflow_id) == (whole.seq, whole.sha)
        except (FileNotFoundError, LogError):  # reading it says so
            return False

    def new(self, spans: Iterable[Found]) -> Iterator[Found]:
        """Leave out what stands before a mark.

        What was cut short is held back until the log has shown the line of its mark: the log may
        have been cut itself, and a span that was confirmed whole would be sent as cut short.

        :raises LedgerError: a mark is not of this log
        """
        held: dict[str, list[Found]] = {}
        for found in spans:
            self._found[found.log] += 1
            if found.log not in self._due:
                yield found
            elif found.seq == 0:
                held.setdefault(found.log, []).append(found)
            else:
                self._pass_over(found)
                if found.log not in self._due:
                    yield from held.pop(found.log, [])

    def _pass_over(self, found: Found) -> None:
        seq, sha = self._due[found.log]
        if found.seq > seq or (found.seq == seq and found.sha != sha):
            self._refuse(found.log, seq)
        if found.seq == seq:
            del self._due[found.log]
        self.report.confirmed += 1

    def finish(self, ends: Mapping[str, tuple[int, str]]) -> None:
        """After the last batch.

        :param ends: of logs of which every span was given: their last line as ``(seq, sha)``
        :raises LedgerError: a log ends before what was confirmed of it
        """
        for log, (seq, _) in self._due.items():
            self._refuse(log, seq)
        for log in sorted(self._found.keys() & ends.keys() - self._broken):
            with self._telling():
                self._ledger.close(log, Whole(*ends[log], self._found[log]))

    def _refuse(self, log: str, seq: int) -> None:
        raise LedgerError(
            f"{self._ledger.path}: {self.report.destination} confirmed the spans of {log} up to "
            f"seq {seq}, but the log has not that line any more: it was cut or rewritten since. "
            f"Look at it by `tapps-otel verify {self.report.workflow_id}`; send what it holds now "
            "by `tapps-otel send --force`"
        )

    def send(self, batch: list[Found]) -> None:
        """Send what of it was not confirmed.

        :raises SendError: it could not be sent
        """
        self.report.seq = max(self.report.seq, batch[-1].seq)
        for request in encoded([found.span for found in batch]):
            of_request = batch[: len(request.spans)]
            batch = batch[len(request.spans) :]
            if request.problem:
                self._note_misfit(of_request[0], request.problem)
                continue
            left = [found for found in of_request if self._is_due(found, request)]
            if len(left) == len(of_request):
                self._send(left, request)
            elif left:
                self._send(left, *encoded([found.span for found in left]))

    def _is_due(self, found: Found, request: Request) -> bool:
        if self._force or not self._digests:
            return True
        span_id = id_of(found.span)
        known = self._digests.get(span_id)
        if known is None:
            return True
        if known == request.digests[span_id]:
            self.report.confirmed += 1
            return False
        self.report.differing += 1
        self._broken.add(found.log)
        self._say(
            f"{found.log}, seq {found.seq}: span {span_id} was confirmed with other content; it "
            "was not sent again (`--force` sends it)"
        )
        return False

    def _send(self, batch: list[Found], request: Request) -> None:
        answer = self._client.send(request.data, spans=len(batch), patience=self._patience)
        if answer.rejected:
            self._note_refusal(batch, answer)
        else:
            self.report.sent += len(batch)
            self._note_success(batch, request)

    def _note_misfit(self, found: Found, problem: str) -> None:
        self._broken.add(found.log)
        span_id = id_of(found.span)
        self._say(f"{found.log}, seq {found.seq}: span {span_id} cannot be encoded: {problem}")

    def _note_refusal(self, batch: list[Found], answer: Answer) -> None:
        """A part was refused, and which is not said: none of them counts as confirmed."""
        refused = min(answer.rejected, len(batch))
        self.report.rejected += refused
        self.report.sent += len(batch) - refused
        self._broken.update(found.log for found in batch)
        reason = f": {answer.message}" if answer.message else ""
        self._say(f"{refused} of {len(batch)} spans were refused by the collector{reason}")

    def _note_success(self, batch: list[Found], request: Request) -> None:
        single: dict[str, str] = {}
        last: dict[str, Found] = {}
        for found in batch:
            if found.seq == 0 or found.log in self._broken:
                span_id = id_of(found.span)
                single[span_id] = request.digests[span_id]
            else:
                last[found.log] = found
        with self._telling():
            if single:
                self._digests.update(single)
                self._ledger.confirm(single)
            for log, found in last.items():
                self._ledger.mark(log, found.seq, found.sha)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell what keeps the ledger from being written: spans will be sent once more."""
        try:
            yield
        except OSError as error:
            self._say(f"{self._ledger.path}: cannot be written: {error.strerror or error}")

    def _say(self, problem: str) -> None:
        if len(self.report.problems) < 100:
            self.report.problems.append(problem)
