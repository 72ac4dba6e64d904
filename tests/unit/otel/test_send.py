"""Sending a run's spans: what is sent, what is confirmed, and the effect of every answer."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from commands import LOGS
from logs import event, writing
from tapps_otel import configure, step, workflow
from tapps_otel.errors import LedgerError, LogDamagedError, RunNotFoundError, SendError
from tapps_otel.log.files import Files, use
from tapps_otel.log.store import Store
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.replay.send import send_run
from tapps_otel.otel.replay.send_report import SendReport
from tapps_otel.otel.transport.client import Answer, Client
from tapps_otel.otel.transport.destination import HTTP, Destination
from tapps_otel.otel.transport.encoding import encoded


class Scripted(Client):
    """A collector that gives these answers in turn, and then accepts everything."""

    def __init__(self, *answers: Answer | SendError, port: int = 4318) -> None:
        super().__init__(Destination(HTTP, f"http://127.0.0.1:{port}/v1/traces"))
        self.answers = list(answers)
        self.sizes: list[int] = []
        self.ids: list[str] = []

    def _send_once(self, request: bytes, seconds: float) -> Answer:
        answer = self.answers.pop(0) if self.answers else Answer()
        if isinstance(answer, SendError):
            raise answer
        self.sizes.append(len(request))
        self.ids += [
            span.span_id.hex()
            for of_resource in ExportTraceServiceRequest.FromString(request).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        return answer

    def close(self) -> None: ...


def send(client: Client, *, force: bool = False) -> SendReport:
    return send_run(Store(LOGS), "r", client, force=force)


@step
def work(n: int) -> int:
    return n


@workflow
def steps(count: int) -> int:
    return sum(work(n) for n in range(count))


def run(count: int, workflow_id: str = "r") -> None:
    configure(durability="os")
    steps.options(workflow_id=workflow_id)(count)


GONE = SendError("nowhere", "it is gone")


def test_confirmed_spans_are_not_sent_again() -> None:
    run(5)
    first, second = Scripted(), Scripted()
    done, again = send(first), send(second)

    assert (done.sent, done.confirmed, done.ok) == (6, 0, True)
    assert (again.sent, again.confirmed, again.ok) == (0, 6, True)
    assert len(set(first.ids)) == 6
    assert second.ids == []
    assert sorted(first.ids) == sorted((one := Scripted(), send(one, force=True))[0].ids)


def test_every_destination_has_its_own_ledger_entries() -> None:
    run(2)
    send(Scripted())

    assert send(Scripted(port=1)).sent == 3


def test_what_was_accepted_before_a_failure_stays_confirmed() -> None:
    run(1200)
    lost, back = Scripted(Answer(), GONE), Scripted()
    with pytest.raises(SendError):
        send(lost)
    done = send(back)

    assert len(lost.ids) == 512
    assert (done.sent, done.confirmed) == (1201 - 512, 512)
    assert len({*lost.ids, *back.ids}) == 1201


def test_rejected_spans_are_reported_and_sent_again() -> None:
    run(5)
    refusing = Scripted(Answer(2, "attribute too long"))
    report = send(refusing)
    again = Scripted()

    assert (report.sent, report.rejected, report.ok) == (4, 2, False)
    assert report.problems == ["2 of 6 spans were rejected by the collector: attribute too long"]
    assert send(again).sent == 6  # the answer does not name the rejected ones


@pytest.mark.slow
def test_requests_are_no_larger_than_collectors_accept() -> None:
    configure(durability="os", capture_inputs=False)

    @step
    def noisy(n: int) -> None:
        raise ValueError("x" * 30_000)

    @workflow
    def loud() -> None:
        for n in range(300):
            try:
                noisy(n)
            except ValueError:
                continue

    loud.options(workflow_id="r")()
    client = Scripted()

    assert send(client).sent == 301
    assert len(client.sizes) > 1
    assert max(client.sizes) < 4 << 20


# ---------------------------------------------------------------- ledgers


def ledger() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (LOGS / "r.ledger").read_text("utf-8").splitlines()]


def rewrite(entries: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
    (LOGS / "r.ledger").write_text(text, "utf-8")


def test_a_span_that_was_confirmed_with_other_content_is_reported_and_not_sent() -> None:
    run(2)
    client = Scripted()
    send(client)
    to = ledger()[0]["to"]
    rewrite([{"to": to, "spans": {client.ids[0]: "0" * 16}}])
    report, forced = send(again := Scripted()), send(Scripted(), force=True)

    assert (report.sent, report.differing, report.ok) == (2, 1, False)
    assert client.ids[0] not in again.ids
    assert "was confirmed with other content" in report.problems[0]
    assert "seq 3" in report.problems[0]
    assert (forced.sent, forced.ok) == (3, True)


@pytest.mark.parametrize(
    "mark", [{"seq": 3, "sha": "0" * 64}, {"seq": 4, "sha": "0" * 64}, {"seq": 99, "sha": "0" * 64}]
)
def test_a_mark_that_does_not_match_the_log_stops_the_send(mark: dict[str, Any]) -> None:
    run(2)
    send(Scripted())
    rewrite([{**ledger()[0], **mark}])

    with pytest.raises(LedgerError, match=r"r\.ledger: .* cut or rewritten") as caught:
        send(Scripted())
    assert "send --force" in str(caught.value)


def test_an_unwritable_ledger_only_makes_the_next_send_repeat() -> None:
    run(2)
    (LOGS / "r.ledger").mkdir()
    with pytest.raises(OSError, match=r"r\.ledger"):
        send(Scripted())  # it cannot be read either
    report = send(Scripted(), force=True)

    assert report.sent == 3
    assert "r.ledger: cannot be written" in report.problems[0]


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    """A ledger with marks and single spans."""
    run(3)
    client = Scripted()
    send(client)
    to = ledger()[0]["to"]
    rewrite([{"to": to, "spans": dict.fromkeys(client.ids[:2], "0" * 16)}, *ledger()])
    return (LOGS / "r.ledger").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_ledger_that_is_torn_or_changed_never_loses_a_span(
    written: bytes, data: st.DataObject
) -> None:
    """Each span is confirmed, sent or reported, whatever is in the ledger."""
    at = data.draw(st.integers(0, len(written)))
    junk = data.draw(st.binary(max_size=20))
    changed = written[:at] + junk + written[at + len(junk) :]
    assume(
        changed.count(b'"spans":4}') == 1 or b'"whole"' not in changed
    )  # the number is reported as it is
    (LOGS / "r.ledger").write_bytes(changed)
    try:
        report = send(Scripted())
    except LedgerError:
        return
    assert report.sent + report.confirmed + report.differing == 4


@pytest.mark.exhaustive
def test_a_large_ledger_needs_little_memory() -> None:
    """A dictionary of it would have 50 MB."""
    run(2)
    other = Scripted().destination.name
    with (LOGS / "r.ledger").open("w", encoding="utf-8") as file:
        for _ in range(250):
            spans = {os.urandom(8).hex(): os.urandom(8).hex() for _ in range(1000)}
            file.write(json.dumps({"to": other, "spans": spans}, separators=(",", ":")) + "\n")
    peaks = []
    tracemalloc.start()
    for _ in range(2):
        tracemalloc.reset_peak()
        assert send(Scripted()).ok
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    first, second = peaks

    assert first < 15e6
    assert second < 2e6  # nothing has to be looked up


# ---------------------------------------------------------------- logs that need not be read again


class Opened(Files):
    """Keeps each log that is opened for reading, to ask later how far it was read in order."""

    def __init__(self) -> None:
        self.logs: list[int] = []

    def open_read(self, path: Path) -> BinaryIO:
        file = super().open_read(path)
        if path.suffix == ".jsonl":
            self.logs.append(os.dup(file.fileno()))
        return file


def read_by(client: Client, *, force: bool = False) -> tuple[int, SendReport]:
    """How many bytes of logs a send reads in order, and its report."""
    with use(opened := Opened()):
        report = send(client, force=force)
    count = sum(os.lseek(one, 0, os.SEEK_CUR) for one in opened.logs)
    for one in opened.logs:
        os.close(one)
    return count, report


def add_beside(*marks: int) -> None:
    """Write spans of a library to side logs, one each."""
    for mark in marks:
        fields = {"name": "GET", "trace_id": f"{7:032x}", "span_id": f"{mark:016x}"}
        with writing(Store(LOGS).new_side_path("r"), "r", durability="os") as log:
            log.append(event("span", **fields, duration_ns=1, otel={"kind": 2}))


def test_logs_that_have_not_grown_since_they_were_sent_are_not_read_again() -> None:
    run(500)
    add_beside(1, 2)
    whole, first = read_by(Scripted())
    least, second = read_by(client := Scripted())
    forced, third = read_by(Scripted(), force=True)

    assert (first.sent, first.confirmed) == (503, 0)
    assert (second.sent, second.confirmed, second.ok) == (0, 503, True)
    assert second.seq == 1002
    assert client.ids == []
    assert (whole > 200_000, least) == (True, 0)
    assert (forced, third.sent) == (whole, 503)


def test_only_side_logs_that_have_grown_are_read_again() -> None:
    run(500)
    add_beside(1)
    send(Scripted())
    add_beside(2)
    few, report = read_by(client := Scripted())

    assert (report.sent, report.confirmed) == (1, 502)
    assert client.ids == [f"{2:016x}"]
    assert few < 2000


def test_a_removed_side_log_is_not_missed() -> None:
    """Side logs of traces without a run accumulate, so users remove them."""
    run(3)
    add_beside(1, 2)
    send(Scripted())
    next(LOGS.glob("r+*.jsonl")).unlink()
    add_beside(3)
    report = send(Scripted())

    assert (report.sent, report.confirmed, report.ok) == (1, 5, True)


def test_what_was_confirmed_span_by_span_is_read_once_more_and_then_not() -> None:
    """As the exporter of live spans does it."""
    run(500)
    send(Scripted())
    spans = [found.span for found in RunSpans(Store(LOGS), "r")]
    digests = [request.digests for request in encoded(spans)]
    rewrite([{"to": ledger()[0]["to"], "spans": one} for one in digests])
    whole, first = read_by(Scripted())
    least, second = read_by(Scripted())

    assert (first.sent, first.confirmed) == (second.sent, second.confirmed) == (0, 501)
    assert (whole > 200_000, least) == (True, 0)


def test_an_interrupted_run_is_read_again_once_it_is_resumed() -> None:
    run(3)
    path = LOGS / "r.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))  # killed in its second step
    sent = send(first := Scripted())
    least, again = read_by(Scripted())
    path.write_bytes(b"".join(lines[:4]))
    steps.resume("r")
    resumed = send(second := Scripted())

    assert (sent.sent, least, again.confirmed) == (3, 0, 3)
    assert (resumed.sent, resumed.confirmed, resumed.ok) == (3, 3, True)
    assert not set(first.ids) & set(second.ids)


def test_a_log_cut_back_to_an_earlier_end_is_reported() -> None:
    run(3)
    path = LOGS / "r.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    send(Scripted())
    steps.resume("r")
    send(Scripted())
    path.write_bytes(b"".join(lines[:4]))

    with pytest.raises(LedgerError, match="cut or rewritten"):
        send(Scripted())


def test_rejected_spans_are_sent_again_though_the_log_has_not_grown() -> None:
    run(5)
    send(Scripted(Answer(1, "no")))

    assert send(Scripted()).sent == 6
    assert send(Scripted()).confirmed == 6


# ---------------------------------------------------------------- logs


def test_a_missing_run_is_an_error() -> None:
    with pytest.raises(RunNotFoundError):
        send(Scripted())


def test_spans_before_damage_are_sent() -> None:
    run(5)
    path = LOGS / "r.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[7] = lines[7].replace(b'"work', b'"WORK', 1)
    path.write_bytes(b"".join(lines))
    client = Scripted()
    with pytest.raises(LogDamagedError):
        send(client)

    assert len(client.ids) == 3  # the rest is not known to be true
    assert len(set(client.ids)) == 3


def test_progress_is_reported_with_each_answer() -> None:
    run(1100)
    seen: list[tuple[int, int]] = []
    note: Callable[[SendReport], None] = lambda one: seen.append((one.sent, one.seq))  # noqa: E731
    send_run(Store(LOGS), "r", Scripted(), progress=note)

    assert [sent for sent, _ in seen] == [0, 512, 1024, 1101]
    assert seen == sorted(seen)
