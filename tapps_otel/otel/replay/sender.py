"""Sends the spans of one run to one collector, and keeps the run's ledger."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from tapps_otel.errors import LedgerError, LogError
from tapps_otel.log.tail import head_of
from tapps_otel.otel.replay.digests import Digests
from tapps_otel.otel.replay.ledger import Ledger, Refusal, Whole
from tapps_otel.otel.transport.encoding import encoded, id_of
from tapps_otel.otel.transport.halving import deliver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tapps_otel.log.store import Store
    from tapps_otel.otel.replay.run_spans import Found
    from tapps_otel.otel.replay.send_report import SendReport
    from tapps_otel.otel.transport.client import Answer, Client
    from tapps_otel.otel.transport.encoding import Request
    from tapps_otel.otel.transport.halving import Delivered

__all__ = ["Sender"]


class Sender:
    """Sends batches of one run to one collector, and keeps the ledger.

    :param patience: for how long a request is retried, seconds
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
        with suppress(OSError) if force else nullcontext():
            self._ledger.read()
        self._refused_before = dict(self._ledger.refused)
        # Marks whose line has yet to be found, and logs of which not everything was accepted.
        self._due = {} if force else dict(self._ledger.marks)
        self._broken: set[str] = set()
        self._found: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    @cached_property
    def _digests(self) -> Digests:
        """What was confirmed span by span; read only if a log has to be read."""
        return Digests() if self._force else self._ledger.spans()

    def skip_confirmed(self, paths: Iterable[Path]) -> set[str]:
        """Note which logs exist: a side log may have been removed since.

        :returns: names of those that have not changed since all of them was confirmed
        """
        names, done = set(), set()
        for path in paths:
            names.add(path.name)
            whole = None if self._force else self._ledger.wholes.get(path.name)
            if whole is not None and self._ends_with(path, whole):
                done.add(path.name)
                self.report.confirmed += whole.spans
                self.report.seq = max(self.report.seq, whole.seq)
        self._due = {log: mark for log, mark in self._due.items() if log in names - done}
        return done

    def _ends_with(self, path: Path, whole: Whole) -> bool:
        if whole.seq < self._ledger.marks.get(path.name, (0, ""))[0]:
            return False  # more was confirmed since: the log was cut
        try:
            return head_of(path, self.report.workflow_id) == (whole.seq, whole.sha)
        except (FileNotFoundError, LogError):  # reported when the log is read
            return False

    def new(self, spans: Iterable[Found]) -> Iterator[Found]:
        """Yield what comes after a mark.

        Interrupted spans are held back until the line of the mark is found: the log may have been
        cut, and a span that was confirmed whole would be sent as interrupted.

        :raises LedgerError: a mark is not of this log
        """
        held: dict[str, list[Found]] = {}
        for found in spans:
            self._found[found.log] += 1
            if found.log not in self._due:
                yield from held.pop(found.log, [])
                yield found
            elif found.seq == 0:
                held.setdefault(found.log, []).append(found)
            else:
                self._count_confirmed(found)
        for log in held.keys() - self._due.keys():
            yield from held[log]

    def pass_over(self, left_out: Found) -> None:
        """Note a span that is not to be sent: the line of a mark may be its own."""
        if self._due.get(left_out.log) == (left_out.seq, left_out.sha):
            del self._due[left_out.log]

    def _count_confirmed(self, found: Found) -> None:
        seq, sha = self._due[found.log]
        if found.seq > seq or (found.seq == seq and found.sha != sha):
            self._raise_cut(found.log, seq)
        if found.seq == seq:
            del self._due[found.log]
        if self._refused_before and id_of(found.span) in self._refused_before:
            self._refused[found.log] += 1
        else:
            self.report.confirmed += 1

    def finish(self, ends: Mapping[str, tuple[int, str]]) -> None:
        """Note as confirmed whole, after the last batch, the logs that are.

        :param ends: of logs of which every span was read: their last line as ``(seq, sha)``
        :raises LedgerError: a log ends before what was confirmed of it
        """
        for log, (seq, _) in self._due.items():
            self._raise_cut(log, seq)
        for log in sorted(self._found.keys() & ends.keys() - self._broken):
            with self._reporting_errors():
                confirmed = self._found[log] - self._refused[log]
                self._ledger.close(log, Whole(*ends[log], confirmed))

    def report_refusals(self) -> None:
        """Report, after the last batch, what was refused before and was not sent again.

        What was not even sent by force is gone: left out by a filter now, or with its side log.
        """
        left = {
            span_id: refusal
            for span_id, refusal in self._ledger.refused.items()
            if self._refused_before.get(span_id) == refusal
        }
        for span_id, refusal in left.items():
            if self._force:
                with self._reporting_errors():
                    self._ledger.withdraw(span_id)
            else:
                what = "was refused before (`--force` sends it again)"
                self._report_refusal(f"span {span_id}", refusal, what)

    def _raise_cut(self, log: str, seq: int) -> None:
        raise LedgerError(
            f"{self._ledger.path}: {self.report.destination} confirmed the spans of {log} up to "
            f"seq {seq}, but the log no longer has that line: it was cut or rewritten since. Check "
            f"it with `tapps-otel verify {self.report.workflow_id}`; send what it holds now with "
            "`tapps-otel send --force`"
        )

    def send(self, batch: list[Found]) -> None:
        """Send the spans that are not confirmed.

        :raises SendError: it could not be sent
        """
        self.report.seq = max(self.report.seq, batch[-1].seq)
        for request in encoded([found.span for found in batch]):
            of_request = batch[: len(request.spans)]
            batch = batch[len(request.spans) :]
            if request.problem:
                self._count_malformed(of_request[0], request.problem)
                continue
            due = [found for found in of_request if self._is_due(found, request)]
            if len(due) == len(of_request):
                self._send(due, request)
            elif due:
                self._send(due, *encoded([found.span for found in due]))

    def _is_due(self, found: Found, request: Request) -> bool:
        if self._force:
            return True
        span_id = id_of(found.span)
        refusal = self._ledger.refused.get(span_id)
        if refusal is not None and refusal.digest == request.digests[span_id]:
            self._refused[found.log] += 1
            return False
        if not self._digests:
            return True
        known = self._digests.get(span_id)
        if known is None:
            return True
        if known == request.digests[span_id]:
            self.report.confirmed += 1
            return False
        self.report.differing += 1
        self._broken.add(found.log)
        self._add_problem(
            f"{found.log}, seq {found.seq}: span {span_id} was confirmed with other content; it "
            "was not sent again (`--force` sends it)"
        )
        return False

    def _send(self, batch: list[Found], request: Request) -> None:
        for part in deliver(self._client, request, patience=self._patience):
            of_part = batch[: len(part.request.spans)]
            batch = batch[len(part.request.spans) :]
            if part.refusal:
                self._note_refusal(of_part[0], part)
            elif part.answer.rejected:
                self._count_rejected(of_part, part.answer)
            else:
                self.report.sent += len(of_part)
                self._confirm(of_part, part.request)

    def _note_refusal(self, found: Found, part: Delivered) -> None:
        """Note a span as refused, before a later mark covers it."""
        span_id = id_of(found.span)
        refusal = Refusal(part.request.digests[span_id], found.span.name, part.refusal)
        self._refused_before.pop(span_id, None)
        self._refused[found.log] += 1
        which = f"{found.log}, seq {found.seq}: span {span_id}"
        self._report_refusal(which, refusal, "was refused")
        try:
            self._ledger.refuse(span_id, refusal)
        except OSError as error:
            self._broken.add(found.log)
            self._add_ledger_problem(error)

    def _report_refusal(self, which: str, refusal: Refusal, what: str) -> None:
        self.report.refused += 1
        self._add_problem(f"{which} ({refusal.name}) {what}: {refusal.reason}")

    def _count_malformed(self, found: Found, problem: str) -> None:
        self._broken.add(found.log)
        span_id = id_of(found.span)
        self._add_problem(
            f"{found.log}, seq {found.seq}: span {span_id} cannot be encoded: {problem}"
        )

    def _count_rejected(self, batch: list[Found], answer: Answer) -> None:
        """Count rejected spans: which they are is unknown, so none is confirmed."""
        rejected = min(answer.rejected, len(batch))
        self.report.rejected += rejected
        self.report.sent += len(batch) - rejected
        self._broken.update(found.log for found in batch)
        reason = f": {answer.message}" if answer.message else ""
        self._add_problem(
            f"{rejected} of {len(batch)} spans were rejected by the collector{reason}"
        )

    def _confirm(self, batch: list[Found], request: Request) -> None:
        single: dict[str, str] = {}
        last: dict[str, Found] = {}
        for found in batch:
            span_id = id_of(found.span)
            if found.seq == 0 or found.log in self._broken or span_id in self._refused_before:
                single[span_id] = request.digests[span_id]
            else:
                last[found.log] = found
        with self._reporting_errors():
            if single:
                self._digests.update(single)
                self._ledger.confirm(single)
            for log, found in last.items():
                self._ledger.mark(log, found.seq, found.sha)

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Report an error of the ledger as a problem: its spans will be sent again."""
        try:
            yield
        except OSError as error:
            self._add_ledger_problem(error)

    def _add_ledger_problem(self, error: OSError) -> None:
        self._add_problem(f"{self._ledger.path}: cannot be written: {error.strerror or error}")

    def _add_problem(self, problem: str) -> None:
        if len(self.report.problems) < 100:
            self.report.problems.append(problem)
