"""Audit logs as OpenTelemetry logs: what the collector makes of them, whatever they contain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import programs
import tapps_otel
from capabilities import need
from commands import LOGS, child, command, environment
from logs import forge
from otlp_collector import Sink, serving
from ports import free_ports
from stack import Record, Stack, wait_for

pytestmark = pytest.mark.stack

FLOW = """
import os, signal, time
from pathlib import Path
from tapps_otel import annotate, step, workflow

@step(retries=1)
def write(n: int) -> int:
    annotate("exact", count=9007199254740993)
    if os.environ.get("KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 2:
        raise ValueError("no")
    return n

@workflow
def report() -> int:
    return write(1)

@workflow
def failing() -> int:
    return write(2)

@workflow
def waiting() -> int:
    write(1)
    Path("waiting").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return write(3)
"""


@pytest.fixture
def tailing(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A collector that reads the test's log folder; the test starts it. Jaeger is not needed."""
    need("stack")
    Path("flow.py").write_text(FLOW, "utf-8")
    stack = Stack(tmp_path_factory.mktemp("stack"), tmp_path / LOGS)
    yield stack
    stack.end()


def lines(run: str) -> list[str]:
    return (LOGS / f"{run}.jsonl").read_text("utf-8").splitlines()


def assert_all_there(records: list[Record], run: str) -> None:
    """Each line of the log arrived once, byte for byte."""
    assert sorted((one.body for one in records), key=lambda line: json.loads(line)["seq"]) == lines(
        run
    )


# ---------------------------------------------------------------- what a line becomes


def test_every_line_is_a_record_with_ids_time_and_exact_numbers(tailing: Stack) -> None:
    child("run", "flow.py:report", "--id", "r1")
    tailing.collector.start()
    events = list(tapps_otel.events("r1"))
    records = tailing.log_records(len(events))

    assert_all_there(records, "r1")
    for event, record in zip(events, sorted(records, key=lambda one: one.seq), strict=True):
        assert record.attributes["tapps.seq"] == ("intValue", str(event.seq))
        assert record.attributes["event.name"] == ("stringValue", event.event_type)
        assert record.attributes["tapps.execution"] == ("intValue", "1")
        assert record.attributes.get("tapps.step.id") == (
            ("stringValue", event.step_id) if event.step_id else None
        )
        assert (record.trace_id, record.span_id) == (event.trace_id, event.span_id)
        assert record.time_ns == event.time_ns
    assert any('"count":9007199254740993' in one.body for one in records)


def test_severity_tells_failures_from_retries_and_interruptions(tailing: Stack) -> None:
    child("run", "flow.py:failing", "--id", "f1")
    child("run", "flow.py:report", "--id", "k1", KILL="1")
    child("resume", "k1")
    tailing.collector.start()
    number = len(lines("f1")) + len(lines("k1"))
    loud = {
        (one.run, one.attributes["event.name"][1], one.attributes["tapps.attempt"][1]): one.severity
        for one in tailing.log_records(number)
        if one.severity != "info" and "tapps.attempt" in one.attributes
    }
    ends = {
        one.run: one.severity
        for one in tailing.log_records(number)
        if one.attributes["event.name"][1] == "workflow_end"
    }

    assert loud == {
        ("f1", "step_fail", "1"): "warn",  # it is tried again
        ("f1", "step_fail", "2"): "error",
        ("k1", "step_fail", "1"): "warn",  # interrupted
    }
    assert ends == {"f1": "error", "k1": "info"}


# ---------------------------------------------------------------- while it is being written


def test_lines_come_while_the_run_is_going_on(tailing: Stack) -> None:
    tailing.collector.start()  # before there is a folder
    with programs.Popen(
        command("run", "flow.py:waiting", "--id", "w1", "--quiet"), env=environment()
    ) as process:
        wait_for(Path("waiting").exists, "the workflow waits")
        during = tailing.log_records(len(lines("w1")))
        Path("go").touch()
        assert process.wait() == 0
    after = tailing.log_records(len(lines("w1")))

    assert {one.attributes["tapps.status"][1] for one in during if one.seq == 1} == {"running"}
    assert len(during) < len(after)
    assert_all_there(after, "w1")


def test_a_restarted_collector_continues_where_it_was(tailing: Stack) -> None:
    tailing.collector.start()
    child("run", "flow.py:report", "--id", "r1")
    tailing.log_records(len(lines("r1")))
    tailing.collector.stop()
    child("run", "flow.py:report", "--id", "r2")
    tailing.collector.start()
    child("run", "flow.py:report", "--id", "r3")
    runs = ("r1", "r2", "r3")
    records = tailing.log_records(sum(len(lines(run)) for run in runs))

    for run in runs:
        assert_all_there([one for one in records if one.run == run], run)


def test_a_killed_collector_loses_no_line(tailing: Stack) -> None:
    tailing.collector.start()
    with programs.Popen(
        command("run", "flow.py:waiting", "--id", "w1", "--quiet"), env=environment()
    ) as process:
        wait_for(Path("waiting").exists, "the workflow waits")
        tailing.collector.kill()
        Path("go").touch()
        assert process.wait() == 0
    for run in ("r1", "r2"):
        tailing.collector.start()
        child("run", "flow.py:report", "--id", run)
        tailing.collector.kill()
    tailing.collector.start()
    for run in ("w1", "r1", "r2"):
        wait_for(partial(_is_there, tailing, run), f"every line of {run}")


def test_lines_on_a_full_disk_are_read_again_after_a_kill(tailing: Stack) -> None:
    """The offset of a line is saved after the line is written, never before."""
    need("full device")
    audit = tailing.folder / "data" / "logs" / "audit.json"
    audit.parent.mkdir(parents=True)
    audit.symlink_to("/dev/full")
    tailing.collector.start()
    child("run", "flow.py:report", "--id", "r1")
    wait_for(
        lambda: tailing.own_metric("otelcol_exporter_send_failed_log_records"), "a failed write"
    )
    tailing.collector.kill()
    audit.unlink()
    tailing.collector.start()

    wait_for(partial(_is_there, tailing, "r1"), "every line of r1")


def test_lines_for_a_backend_that_is_down_outlive_a_kill(tailing: Stack) -> None:
    (port,) = free_ports(1)
    tailing.collector.env["TAPPS_STACK_LOGS"] = "otlp_http/logs"
    tailing.collector.env["TAPPS_STACK_LOGS_ENDPOINT"] = f"http://127.0.0.1:{port}"
    tailing.collector.start()
    child("run", "flow.py:report", "--id", "r1")
    wait_for(lambda: tailing.own_metric("otelcol_exporter_queue_size"), "lines in the queue")
    tailing.collector.kill()
    tailing.collector.start()

    with serving(Sink(port)) as backend:
        wait_for(lambda: set(backend.log_bodies) == set(lines("r1")), "every line of r1")


def _is_there(tailing: Stack, run: str) -> bool:
    return {one.body for one in tailing.log_records(1, run)} == set(lines(run))


# ---------------------------------------------------------------- bad input


ODD: list[dict[str, Any]] = [
    {"event_type": "annotation", "timestamp": "yesterday"},
    {"event_type": "annotation", "trace_id": "zz", "span_id": "0a" * 8},
    {"event_type": "step_fail", "trace_id": 5, "status": 7, "step_id": None, "error": None},
    {"event_type": "step_fail", "status": "failed", "error": "a text"},
    {"event_type": "step_fail", "status": "failed", "error": {}},
    {"event_type": "of_a_newer_version", "line": 1, "level": "loud", "body": {"deep": [{}]}},
    {"event_type": "annotation", "name": "${env:HOME}", "step": "EXPR(body)"},
    {"event_type": "annotation", "name": "\ud800", "attributes": {"n": 1e300, "big": 2**70}},
    {"event_type": "annotation", "attributes": {"as long as a line can be": "x" * (1 << 20)}},
]


def test_a_line_arrives_whatever_it_says(tailing: Stack) -> None:
    forge(LOGS, "odd", [{"event_type": "workflow_start", "status": "running"}, *ODD])
    tailing.collector.start()
    records = tailing.log_records(len(ODD) + 1)

    assert_all_there(records, "odd")
    assert all("." in name for one in records for name in one.attributes)  # ours, and no others


def test_a_torn_last_line_is_left_out_until_it_is_whole(tailing: Stack) -> None:
    child("run", "flow.py:report", "--id", "r1")
    child("run", "flow.py:report", "--id", "r2")
    log = LOGS / "r1.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[:-300])  # in the middle of the last line
    tailing.collector.start()
    tailing.log_records(len(lines("r2")), "r2")
    before = tailing.log_records(len(lines("r1")) - 1, "r1")
    # Meanwhile the collector polls many times, for longer than its default flush period.
    child("run", "flow.py:failing", "--id", "r3")
    tailing.log_records(len(lines("r3")), "r3")
    with log.open("ab") as file:
        file.write(whole[-300:])
    after = tailing.log_records(len(lines("r1")), "r1")

    assert max(one.seq for one in before) == len(lines("r1")) - 1
    assert_all_there(after, "r1")


def test_a_sealed_torn_line_is_reported_by_its_repair_only(tailing: Stack) -> None:
    child("run", "flow.py:report", "--id", "k1", KILL="1")
    log = LOGS / "k1.jsonl"
    log.write_bytes(log.read_bytes()[:-100])
    child("resume", "k1")
    good = [line for line in lines("k1") if line.endswith('"}') and line.startswith('{"v":1')]
    tailing.collector.start()
    records = tailing.log_records(len(good))

    assert len(good) == len(lines("k1")) - 1
    assert sorted(one.body for one in records) == sorted(good)
    assert [one.severity for one in records if one.attributes["event.name"][1] == "log_repair"] == [
        "warn"
    ]


def test_foreign_files_and_lines_are_left_out(tailing: Stack) -> None:
    child("run", "flow.py:report", "--id", "r1")
    own = '{"v":1,"seq":1,"event_type":"workflow_start",'
    (LOGS / "theirs.events.jsonl").write_text(f"{own}\n")
    (LOGS / "foreign.jsonl").write_text(
        f'{{"hello":1}}\n[]\n\n{own}\n{own}"sha":"x"}}\nfree text\n'
    )
    (LOGS / "binary.jsonl").write_bytes(bytes(range(256)) * 50)
    (LOGS / "long.jsonl").write_bytes(b"x" * 5_000_000 + b"\n")
    (LOGS / "folder.jsonl").mkdir()
    tailing.collector.start()
    tailing.log_records(len(lines("r1")))
    child("run", "flow.py:report", "--id", "r2")  # read after the others
    number = len(lines("r1")) + len(lines("r2"))
    records = tailing.log_records(number)

    assert len(records) == number
    assert {one.run for one in records} == {"r1", "r2"}


def test_a_folder_that_cannot_be_read_does_not_stop_the_traces(tailing: Stack) -> None:
    LOGS.parent.mkdir(parents=True)
    LOGS.write_text("a file where the folder should be")
    tailing.start()
    child("run", "flow.py:report", "--id", "r1", "--log-dir", "elsewhere", **tailing.env())
    begun = next(iter(tapps_otel.events("r1", log_dir="elsewhere")))
    names = {span.name for span in tailing.spans(str(begun.trace_id), [str(begun.span_id)])}

    assert {"workflow report", "step write"} <= names


@pytest.mark.exhaustive
def test_a_hundred_megabytes_of_old_logs_are_read_in_bounded_memory(tailing: Stack) -> None:
    need("proc")
    child("run", "flow.py:report", "--id", "r1")
    begin, *_ = lines("r1")
    # Lines as long as with large results. Only their form matters here, not the chain.
    filler = "y" * 3000
    number = 0
    for run in range(20):
        with (LOGS / f"old-{run}.jsonl").open("w", encoding="utf-8") as file:
            for seq in range(1, 1601):
                line = begin.replace('"seq":1,', f'"seq":{seq},', 1)
                line = line.replace('"workflow_id":"r1"', f'"workflow_id":"old-{run}"', 1)
                file.write(line.replace('"sha":', f'"filler":"{filler}","sha":', 1) + "\n")
                number += 1
    assert sum(path.stat().st_size for path in LOGS.glob("old-*")) > 100_000_000
    tailing.collector.start()
    number += len(lines("r1"))
    wait_for(
        lambda: tailing.own_metric("otelcol_exporter_sent_log_records") >= number, "all is read", 90
    )
    process = tailing.collector.process
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])  # KiB

    assert peak < 500 * 1024


# ---------------------------------------------------------------- records that programs send


def test_records_that_a_program_sends_tell_what_its_lines_tell(tailing: Stack) -> None:
    tailing.collector.start()
    child("run", "flow.py:failing", "--id", "f1", OTEL_LOGS_EXPORTER="otlp", **tailing.env())
    number = len(lines("f1"))
    found = tailing.log_records(2 * number, "f1")
    of_lines = {one.seq: one for one in found if one.body.startswith("{")}
    sent = {one.seq: one for one in found if not one.body.startswith("{")}

    assert len(of_lines) == len(sent) == number
    for seq, line in of_lines.items():
        record = sent[seq]
        assert (record.severity, record.time_ns) == (line.severity, line.time_ns)
        assert (record.trace_id, record.span_id) == (line.trace_id, line.span_id)
        named = line.attributes.keys() - {"event.name"}
        assert {name: record.attributes[name] for name in named} == {
            name: line.attributes[name] for name in named
        }
