from __future__ import annotations

from typing import Any

import pytest

from tapps_otel import clock
from tapps_otel.log.event import Event, raw_json
from tapps_otel.past.advice import Advice, next_steps
from tapps_otel.past.fold import RESOLVED, RunHistory, fold
from tapps_otel.past.timeline import LogState, make_timeline
from tapps_otel.report import history as report
from tapps_otel.report.progress import Progress
from tapps_otel.report.run_screen import Screen, audit, run_screen
from tapps_otel.report.steps import Choice, Steps, step_lines

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

    def cut_off(self, step_id: str) -> Log:
        """What a resume records of a step whose process was killed."""
        error = {"type": "interrupted", "message": "its process ended"}
        return self.fail(step_id, "interrupted", error=error, late=True)

    def end(self, status: str, **fields: Any) -> Log:
        return self.add("workflow_end", status=status, duration_ns=9_000_000_000, **fields)

    @property
    def history(self) -> RunHistory:
        return fold("r", self.events)


def shown(history: RunHistory, *, wide: int | None = None, log: LogState | None = None) -> str:
    """What ``show`` prints of a run, but for its log and what to do next."""
    steps = Steps(history, make_timeline(history, log=log))
    sections = run_screen(Screen(steps, Choice(), wide=wide))
    return "\n\n".join("\n".join(line.text.rstrip() for line in one) for one in sections)


EVERY_STEP = Choice()


def steps(history: RunHistory, choice: Choice = EVERY_STEP) -> str:
    lines = step_lines(Steps(history, make_timeline(history)), choice, wide=None)
    return "\n".join(line.text.rstrip() for line in lines)


def outlook(history: RunHistory, holder: tuple[int, str] | None = None) -> list[str]:
    return [f"{label:<10}{text}" for label, text, _ in report.outlook(history, holder)]


def test_the_first_screen_describes_the_run_and_its_status() -> None:
    log = Log().begin(inputs=raw_json({"url": "ä"}), trace_id="ab" * 16)
    log.start("draft").finish("draft").end("completed", result=raw_json("done"))

    assert shown(log.history) == (
        "run       r\n"
        "workflow  article (m:article)\n"
        "status    completed at 2025-11-13 02:13:30 UTC\n"
        'inputs    {"url":"ä"}\n'
        'result    "done"\n'
        "time      9.00 s\n"
        "costs     draft 1.50 s (17%)\n"
        f"trace     {'ab' * 16}\n"
        "\n"
        "✓ execution 1  2025-11-13 02:13:21  9.00 s  completed  process 7 on box\n"
        "\n"
        "  ✓ draft  02:13:22.000  1.50 s"
    )


def test_the_time_between_two_executions_is_shown_and_what_was_killed() -> None:
    log = Log().begin().start("scan").finish("scan").start("draft", agent="writer")
    log.add("annotation", name="alive").begin().cut_off("draft")
    log.start("draft", 2, agent="writer").finish("draft").end("completed")
    screen = shown(log.history)

    assert "killed    draft after at least 20 ms (execution 1 at 02:13:25.000, process 7 " in screen
    assert "kept      1 step not run again: scan\n" in screen
    assert (
        "! execution 1  2025-11-13 02:13:21  >= 4.00 s  interrupted  process 7 on box\n"
        "  down         2025-11-13 02:13:25  1.00 s\n"
        "✓ execution 2  2025-11-13 02:13:26  9.00 s     completed    process 8 on box\n"
    ) in screen
    assert (
        "  ✓ scan         02:13:22.000  1.50 s     not run again\n"
        "  ✓ draft        02:13:24.000  >= 1.52 s  writer, 2 attempts\n"
        "      attempt 1  02:13:24.000  >= 20 ms   execution 1, interrupted\n"
        "      attempt 2  02:13:28.000  1.50 s     execution 2, completed\n"
        "\n"
        "  >= as far as the log knows: the process ended before it could write the end"
    ) in screen


def test_many_executions_are_cut_to_the_last_ones() -> None:
    log = Log().begin()
    for _ in range(30):
        log.start("draft").begin().cut_off("draft")
    screen = shown(log.history)

    assert "  21 earlier executions: --verbose shows them\n" in screen
    assert "\n! execution 31  2025" in screen
    assert screen.count("\nkilled ") == 3


@pytest.mark.parametrize("wide", [60, 100, 200])
def test_every_line_fits_the_terminal(wide: int) -> None:
    log = Log().begin(inputs=raw_json({"text": "x" * 5_000}), workflow={"name": "w" * 300})
    log.start("name " * 40, agent="a" * 300, key="k" * 300)
    log.fail("name " * 40, error={"type": "E", "message": "m " * 100_000})
    log.start("outer").start("outer/" + "inner" * 90).begin().end("failed")
    lines = shown(log.history, wide=wide).splitlines()

    assert max(map(len, lines)) <= wide
    assert len(lines) < 45


def test_verbose_text_is_whole() -> None:
    history = Log().begin(inputs=raw_json({"text": "x" * 5_000})).history
    steps = Steps(history, make_timeline(history))
    whole = run_screen(Screen(steps, Choice(), wide=80, verbose=True))

    assert "x" * 5_000 in "".join(line.text[10:] for line in whole[0])


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

    assert "\ncalled by step shop/order#2 of run day\n" in shown(history)
    assert steps(history).splitlines()[0] == "  ✓ pay    02:13:22.000  1.50 s     run pay-1"
    assert [one.workflow_id for one in report.child_runs(history)] == ["send-1", "pay-1"]
    data = report.as_json(history)
    assert data["parent"] == {"workflow_id": "day", "step_id": "shop/order#2", "log_dir": None}
    assert [one["child"] for one in data["steps"]] == [
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


def test_a_retried_step_is_shown_with_its_attempts_and_waits() -> None:
    log = Log().begin().start("draft").fail("draft", retry_in_ns=900_000_000)
    log.start("draft", 2).finish("draft")

    assert steps(log.history) == (
        "  ✓ draft        02:13:22.000  1.52 s  2 attempts, waited 1.98 s\n"
        "      attempt 1  02:13:22.000  20 ms   execution 1, failed, ValueError: no, "
        "then waited 1.98 s\n"
        "      attempt 2  02:13:24.000  1.50 s  execution 1, completed"
    )


def test_of_many_attempts_the_first_and_the_last_are_shown() -> None:
    log = Log().begin()
    for number in range(1, 101):
        log.start("draft", number).fail("draft", retry_in_ns=1)
    lines = steps(log.history).splitlines()

    assert [line.split("  0")[0].strip() for line in lines[1:]] == [
        "attempt 1",
        "95 more",
        *(f"attempt {number}" for number in range(97, 101)),
    ]


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


def test_a_handled_failure_inputs_keys_and_artifacts_are_shown() -> None:
    log = Log().begin().start("charge", order=1).fail("charge")
    log.start("refund", order=1, inputs=raw_json({"amount": 3, "why": "x" * 99}))
    log.finish("refund", artifacts=[{"name": "receipt", "path": "out/receipt.txt"}])
    log.start("mail", key="to-ann", action="send").finish("mail")
    charge, refund, mail = steps(log.history).splitlines()

    assert charge.endswith("failed, handled, ValueError: no")
    assert f'{{"amount":3,"why":"{"x" * 20}…, made out/receipt.txt' in refund
    assert mail.endswith("send, key to-ann")


def many(count: int) -> Log:
    """Steps of two names in turn; one of them fails, and is handled, and the last is open."""
    log = Log().begin()
    for number in range(1, count + 1):
        name, agent = ("parse", "reader") if number % 2 else ("fetch", "net")
        step_id = f"{name}#{number}"
        log.start(step_id, order=number, agent=agent)
        if number == 7:
            log.fail(step_id)
        elif number < count:
            log.finish(step_id, duration_ns=10**9 * (9 if number == 4 else 1))
    return log


def test_many_steps_are_summed_up_by_name() -> None:
    history = many(62).history
    history.status = "interrupted"

    assert len(steps(many(60).history).partition("\n\n")[0].splitlines()) == 60
    assert steps(history) == (
        "    STEP   COUNT  FAILED  OPEN  IN ALL   SLOWEST         AGENT\n"
        "  ✗ parse  31     1       -     30.02 s  1.00 s parse#1  reader\n"
        "  ! fetch  31     -       1     38.00 s  9.00 s fetch#4  net\n"
        "\n"
        "  ✗ parse#7   02:13:34.000  20 ms      failed, handled, ValueError: no, reader\n"
        "  ! fetch#62  02:15:24.000  >= 0.0 ms  interrupted, net\n"
        "\n"
        "  62 steps, summed up by name; see more with --all, --failed, --step PATTERN, "
        "--agent NAME\n"
        "\n"
        "  >= as far as the log knows: the process ended before it could write the end"
    )


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        (Choice(everything=True), 80),
        (Choice(failed=True), 2),
        (Choice(pattern="parse#7*"), 6),
        (Choice(pattern="fetch#62"), 1),
        (Choice(agent="net"), 40),
        (Choice(pattern="parse", failed=True), 1),
    ],
)
def test_some_steps_are_chosen(choice: Choice, count: int) -> None:
    rows = steps(many(80).history, choice).partition("\n\n")[0].splitlines()

    assert len(rows) == count


def test_that_no_step_matches_is_told() -> None:
    assert steps(many(80).history, Choice(pattern="x")) == "none of the 80 steps matches"
    assert steps(Log().begin().history, Choice(pattern="x")) == ""


def test_inner_steps_are_summed_up_below_their_parents() -> None:
    log = Log().begin()
    for number in range(1, 41):
        outer = f"outer#{number}" if number > 1 else "outer"
        log.start(outer).start(f"{outer}/inner")
        end = log.fail if number == 9 else log.finish
        end(f"{outer}/inner")
        end(outer)
    groups, bad, *_ = steps(log.history).split("\n\n")

    assert groups.splitlines()[1].startswith("  ✗ outer    40     1 ")
    assert groups.splitlines()[2].startswith("    ✗ inner  40     1 ")
    assert [line.split()[1] for line in bad.splitlines()] == ["outer#9/inner"]


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
    assert next_steps(log.history) == [Advice("resume r")]


def test_between_two_steps_a_resume_continues_after_the_last() -> None:
    log = Log().begin().start("scan").finish("scan")

    assert outlook(log.history) == [
        "resume    continues after the last step; 1 completed step will not run again"
    ]


def test_a_completed_run_has_no_outlook() -> None:
    history = Log().begin().start("scan").finish("scan").end("completed").history

    assert outlook(history) == []
    assert next_steps(history) == []


def test_an_empty_log_is_a_run_not_begun() -> None:
    history = RunHistory("r")

    assert shown(history).splitlines()[2] == "status    not begun"
    assert steps(history) == ""
    assert outlook(history) == ["resume    starts at the beginning: no step has begun"]
    assert next_steps(history) == []


def test_an_interrupted_step_that_must_be_resolved_names_that_command() -> None:
    kind = "tapps_otel.errors.StepInterruptedError"
    error = {"type": kind, "message": "step 'pay' was ...", "attributes": {"step_id": "pay"}}
    log = Log().begin().start("scan").start("pay")
    log.begin().fail("scan", "interrupted").fail("pay", "interrupted").end("failed", error=error)

    assert next_steps(log.history) == [
        Advice("resolve r pay --result JSON"),
        Advice("resolve r pay --rerun"),
    ]
    assert outlook(log.history)[-1] == "resume    refused until pay is resolved"
    log.add("annotation", name=RESOLVED, step_id="pay", attributes={"by": "rerun"})
    log.add("annotation", name=RESOLVED, step_id="scan", attributes={"by": "rerun"})
    assert next_steps(log.history) == [Advice("resume r")]
    assert "will run again" in steps(log.history)


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
    assert next_steps(log.history) == [expected]
    assert outlook(log.history)[-1] == "resume    refused until a step of run i is resolved"


def test_annotations_are_shown_the_last_ones_of_many() -> None:
    log = Log().begin().add("annotation", name="note", attributes={"page": "x", "n": [1, None]})
    one = [line.text for line in report.remarks(log.history, most=3)]
    for number in range(5):
        log.add("annotation", name=f"n{number}", step_id="a")
    more = [line.text.rstrip() for line in report.remarks(log.history, most=3)]

    assert one == ["note  note  seq 2  page=x n=[1,null]"]
    assert more[0] == "note  3 earlier ones: --verbose shows them"
    assert more[-1] == "note  n4 in a  seq 7"


def test_the_state_of_the_log_is_told() -> None:
    state = LogState("x.jsonl", 7, "ab" * 32, ((1, 2),), "9 bytes: torn")

    assert [line.text for line in audit(state, dropped=3)] == [
        "log       x.jsonl, 7 events",
        "audit     chain intact, head abababababababab",
        "repairs   1 torn or damaged region declared in the log: see verify",
        "gap       3 events could not be written and were dropped",
        "log end   9 bytes: torn",
    ]
    assert [line.text for line in audit(LogState("x", 7, "ab" * 32, damage="at byte 9"))][1:] == [
        "audit     damaged after seq 7: shown up to there"
    ]


def test_as_json_has_decoded_values() -> None:
    log = Log().begin(inputs=raw_json({"url": "u"})).start("draft", inputs=raw_json([1]))
    log.finish("draft", result=raw_json({"a": 1})).start("pay")
    data = report.as_json(log.history)

    assert data["inputs"] == {"url": "u"}
    assert data["steps"][0]["result"] == {"a": 1}
    assert data["steps"][0]["inputs"] == [1]
    assert data["steps"][0]["attempts"][0]["status"] == "completed"
    assert data["open"] == data["goes_on_at"] == ["pay"]
    assert data["executions"][0]["process"] == {"pid": 7, "host": "box"}


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
