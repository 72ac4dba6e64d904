from __future__ import annotations

from typing import Any

import pytest

from tapps_otel import clock
from tapps_otel.log.event import Event, raw_json
from tapps_otel.past.advice import Advice
from tapps_otel.past.fold import RESOLVED, RunHistory, fold
from tapps_otel.report import history as report
from tapps_otel.report.progress import Progress

AT = 1_763_000_000_000_000_000


class Log:
    """Events as a run writes them, a second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.execution = 1

    def add(self, event_type: str, **fields: Any) -> Log:
        seq = len(self.events) + 1
        at = clock.timestamp(AT + seq * 1_000_000_000)
        fields = {"workflow_id": "r", "execution": self.execution, "timestamp": at, **fields}
        self.events.append(Event(event_type=event_type, seq=seq, **fields))
        return self

    def begin(self, **fields: Any) -> Log:
        if self.events:
            self.execution += 1
            return self.add("workflow_resume", process={"pid": 8, "host": "box"}, **fields)
        fields = {"workflow": {"name": "article", "path": "m:article"}} | fields
        return self.add("workflow_start", process={"pid": 7, "host": "box"}, **fields)

    def start(self, step_id: str, attempt: int = 1, **fields: Any) -> Log:
        name = step_id.rpartition("/")[2].partition("#")[0]
        fields = {"agent": None, "action": None} | fields
        return self.add("step_start", step_id=step_id, step=name, attempt=attempt, **fields)

    def finish(self, step_id: str, **fields: Any) -> Log:
        fields = {
            "status": "completed",
            "duration_ns": 1_500_000_000,
            "result": raw_json(1),
        } | fields
        return self.add("step_finish", step_id=step_id, step=step_id, **fields)

    def fail(self, step_id: str, status: str = "failed", **fields: Any) -> Log:
        error = {"type": "ValueError", "message": "no"}
        fields = {"status": status, "duration_ns": 20_000_000, "error": error} | fields
        return self.add("step_fail", step_id=step_id, step=step_id, **fields)

    def end(self, status: str, **fields: Any) -> Log:
        return self.add("workflow_end", status=status, duration_ns=9_000_000_000, **fields)

    @property
    def history(self) -> RunHistory:
        return fold("r", self.events)


def steps(history: RunHistory) -> str:
    return "\n".join(line.text.rstrip() for line in report.step_lines(history))


def outlook(history: RunHistory, holder: tuple[int, str] | None = None) -> list[str]:
    return [line.text for line in report.outlook(history, holder)]


def test_the_header_describes_the_run_and_its_status() -> None:
    log = Log().begin(inputs=raw_json({"url": "ä"}), trace_id="ab" * 16)
    log.start("draft").finish("draft").end("completed", result=raw_json("done"))

    assert [line.text for line in report.header(log.history)] == [
        "run       r",
        "workflow  article (m:article)",
        "status    completed",
        'inputs    {"url":"ä"}',
        'result    "done"',
        f"trace     {'ab' * 16}",
    ]
    assert [line.text for line in report.execution_lines(log.history)] == [
        "✓ execution 1  2025-11-13 02:13:21 UTC  9.00 s  completed  process 7 on box"
    ]


def test_long_values_are_cut_only_for_a_terminal() -> None:
    history = Log().begin(inputs=raw_json({"text": "x" * 200})).history

    narrow = [line.text for line in report.header(history, columns_wide=60)]
    wide = [line.text for line in report.header(history)]
    assert max(map(len, narrow)) == 60
    assert narrow[3].endswith("…")
    assert wide[3].endswith('x"}')


def test_a_run_names_the_step_that_called_it_and_the_runs_that_it_calls() -> None:
    workflow = {"name": "order", "parent": {"workflow_id": "day", "step_id": "shop/order#2"}}
    log = Log().begin(workflow=workflow)
    for name, attributes in (
        ("pay", {"tapps.child.workflow_id": "pay-1"}),
        ("send", {"tapps.child.workflow_id": "send-1", "tapps.child.log_dir": "/far"}),
        ("pay#2", {"tapps.child.workflow_id": "pay-1"}),
    ):
        log.start(name, attributes=attributes)
        if name != "send":
            log.finish(name)
    history = log.history

    assert "called by step shop/order#2 of run day" in [one.text for one in report.header(history)]
    assert steps(history).splitlines()[0] == "  ✓ pay    02:13:22.000  1.50 s  run pay-1"
    assert [one.workflow_id for one in report.child_runs(history)] == ["send-1", "pay-1"]
    shown = report.as_json(history)
    assert shown["parent"] == {"workflow_id": "day", "step_id": "shop/order#2", "log_dir": None}
    assert [one["child"] for one in shown["steps"]] == [
        {"workflow_id": "pay-1", "log_dir": None},
        {"workflow_id": "send-1", "log_dir": "/far"},
        {"workflow_id": "pay-1", "log_dir": None},
    ]


@pytest.mark.parametrize(
    "parent", [None, "x", {}, {"workflow_id": 1, "step_id": "s"}, {"workflow_id": "r"}]
)
def test_a_parent_that_is_none_is_not_shown(parent: object) -> None:
    history = Log().begin(workflow={"name": "order", "parent": parent}).history

    assert history.parent is None
    assert report.as_json(history)["parent"] is None


def test_nested_steps_are_under_their_parent() -> None:
    log = Log().begin().start("outer", agent="boss").start("outer/inner").finish("outer/inner")
    log.start("other").finish("outer").add("step_skip", step_id="other", reason="no need")

    assert steps(log.history) == (
        "  ✓ outer    02:13:22.000  1.50 s  boss\n"
        "    ✓ inner  02:13:23.000  1.50 s\n"
        "  - other    02:13:25.000          skipped, no need"
    )


def test_a_retried_step_is_shown_with_its_attempts() -> None:
    log = Log().begin().start("draft").fail("draft", retry_in_ns=900_000_000)
    log.start("draft", 2).finish("draft")

    assert steps(log.history) == (
        "  ✓ draft        02:13:24.000  1.50 s  2 attempts\n"
        "      attempt 1  02:13:22.000  20 ms   execution 1, failed, ValueError: no, "
        "retry after 900 ms\n"
        "      attempt 2  02:13:24.000  1.50 s  execution 1, completed"
    )


@pytest.mark.parametrize(
    ("end", "note"),
    [
        ({}, "failed, ValueError: no"),
        ({"status": "timeout"}, "timeout, ValueError: no"),
        ({"error": {"type": "KeyError", "message": ""}}, "failed, KeyError"),
    ],
)
def test_a_failure_shows_its_error(end: dict[str, Any], note: str) -> None:
    log = Log().begin().start("draft").fail("draft", **end)

    assert steps(log.history).endswith(note)


def test_a_handled_failure_and_artifacts_are_shown() -> None:
    log = Log().begin().start("charge", order=1).fail("charge").start("refund", order=1)
    log.finish("refund", artifacts=[{"name": "receipt", "path": "out/receipt.txt"}])

    assert "failed, handled, ValueError: no" in steps(log.history)
    assert "made out/receipt.txt" in steps(log.history)


def test_open_steps_and_where_a_resume_continues() -> None:
    log = Log().begin().start("scan").finish("scan").start("outer").start("outer/pay")

    assert outlook(log.history) == [
        "open      outer/pay",
        "resume    continues at outer/pay; 1 completed step will not run again",
    ]
    assert outlook(log.history, (7, "box")) == [
        "open      outer/pay",
        "now       in progress in process 7 on box",
    ]
    assert report.next_steps(log.history) == [Advice("resume r")]


def test_between_two_steps_a_resume_continues_after_the_last() -> None:
    log = Log().begin().start("scan").finish("scan")

    assert outlook(log.history) == [
        "resume    continues after the last step; 1 completed step will not run again"
    ]


def test_a_completed_run_has_no_outlook() -> None:
    history = Log().begin().start("scan").finish("scan").end("completed").history

    assert outlook(history) == []
    assert report.next_steps(history) == []


def test_an_empty_log_is_a_run_not_begun() -> None:
    history = RunHistory("r")

    assert [line.text for line in report.header(history)][-1] == "status    not begun"
    assert report.execution_lines(history) == report.step_lines(history) == []
    assert outlook(history) == ["resume    starts at the beginning: no step has begun"]
    assert report.next_steps(history) == []


def test_an_interrupted_step_that_must_be_resolved_names_that_command() -> None:
    kind = "tapps_otel.errors.StepInterruptedError"
    error = {"type": kind, "message": "step 'pay' was ...", "attributes": {"step_id": "pay"}}
    log = Log().begin().start("scan").start("pay")
    log.begin().fail("scan", "interrupted").fail("pay", "interrupted").end("failed", error=error)

    assert report.next_steps(log.history) == [
        Advice("resolve r pay --result JSON"),
        Advice("resolve r pay --rerun"),
    ]
    assert outlook(log.history)[-1] == "resume    refused until pay is resolved"
    log.add("annotation", name=RESOLVED, step_id="pay", attributes={"by": "rerun"})
    log.add("annotation", name=RESOLVED, step_id="scan", attributes={"by": "rerun"})
    assert report.next_steps(log.history) == [Advice("resume r")]
    assert "will run again, by resolve" in steps(log.history)


@pytest.mark.parametrize("log_dir", [None, "/far away"])
def test_a_step_of_a_child_run_that_must_be_resolved_is_shown_in_that_run(
    log_dir: str | None,
) -> None:
    kind = "tapps_otel.errors.StepInterruptedError"
    error = {"type": kind, "message": "resolve i pay", "attributes": {"step_id": "pay"}}
    attributes = {"tapps.child.workflow_id": "i", "tapps.child.log_dir": log_dir}
    log = Log().begin().start("pay").fail("pay", "interrupted")  # a namesake, of this run
    log.start("outer").start("outer/inner", attributes=attributes)
    log.fail("outer/inner", error={**error, "stack": "1"}).fail("outer", error=error)
    log.end("failed", error={**error, "stack": "2"})

    expected = Advice("show i")
    if log_dir is not None:
        expected = Advice("tapps-otel show i --log-dir '/far away'", is_command=False)
    assert report.next_steps(log.history) == [expected]
    assert outlook(log.history)[-1] == "resume    refused until a step of run i is resolved"


def test_remarks_are_annotations_repairs_and_gaps() -> None:
    log = Log().begin().add("annotation", name="note", attributes={"page": "x", "n": [1, None]})
    log.add("log_repair", damage=[(1, 2, "0")]).add("log_gap", attributes={"dropped": 3})

    assert [line.text for line in report.remarks(log.history)] == [
        "note  note  seq 2  page=x n=[1,null]",
        "repairs   1 torn or damaged region declared in the log: see verify",
        "gap       3 events could not be written and were dropped",
    ]


def test_as_json_has_decoded_values() -> None:
    log = Log().begin(inputs=raw_json({"url": "u"})).start("draft", inputs=raw_json([1]))
    log.finish("draft", result=raw_json({"a": 1})).start("pay")
    shown = report.as_json(log.history)

    assert shown["inputs"] == {"url": "u"}
    assert shown["steps"][0]["result"] == {"a": 1}
    assert shown["steps"][0]["inputs"] == [1]
    assert shown["steps"][0]["attempts"][0]["status"] == "completed"
    assert shown["open"] == shown["goes_on_at"] == ["pay"]
    assert shown["executions"][0]["process"] == {"pid": 7, "host": "box"}


def test_progress_shows_what_ends_and_what_is_open() -> None:
    log = Log().begin().start("outer").start("outer/a").start("outer/b").finish("outer/a")
    log.fail("outer/b", attempt=2, retry_in_ns=10**9)
    progress = Progress()
    said = [line.text for event in log.events if (line := progress.feed(event)) is not None]

    assert said == [
        "  ✓ outer/a  1.50 s",
        "  ✗ outer/b  20 ms, attempt 2, ValueError: no, retry in 1.00 s",
    ]
    assert [one.step_id for one in progress.running] == ["outer"]
    assert [*progress.waiting] == ["outer/b"]
    log.start("outer/b", 3)
    progress.feed(log.events[-1])
    assert [(one.step_id, one.attempt) for one in progress.running] == [("outer/b", 3)]
    assert (progress.finished, progress.failed, progress.waiting) == (1, 0, {})


def test_progress_of_a_resume_starts_over() -> None:
    log = Log().begin().start("a").begin().fail("a", "interrupted", late=True)
    progress = Progress()
    said = [line.text for event in log.events if (line := progress.feed(event)) is not None]

    assert said == ["! a  was in progress when its process ended"]
    assert (progress.running, progress.finished, progress.execution) == ([], 0, 2)


def test_progress_shows_annotations_repairs_and_gaps() -> None:
    log = Log().begin().add("annotation", name="note\x1b", step_id="a").add("log_repair")
    log.add("log_gap").add("something_new").add(
        "step_skip", step_id="b", status="skipped", reason="r"
    )
    progress = Progress()

    assert [line.text for event in log.events if (line := progress.feed(event))] == [
        r"· note note\x1b in a",
        "! the log's torn end was sealed",
        "! events could not be written and were dropped",
        "- b  r",
    ]
