"""The command ``show``."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyte
import pytest

from commands import LOGS, Cli, child, on_terminal
from effort import sample
from logs import forge
from tapps_otel.log.lease import Lease
from terminals import C_LOCALE, displayed


@pytest.mark.usefixtures("runs")
def test_a_runs_history_is_shown(cli: Cli) -> None:
    done = cli("show", "two")

    assert (done.code, done.err) == (0, "")
    assert "status    failed at " in done.out
    assert "error     RuntimeError: boom\n" in done.out
    assert "✓ execution 1" not in done.out
    assert "✗ execution 1" in done.out
    assert "  ✓ double  " in done.out
    assert (
        "resume    continues after the last step; 1 completed step will not run again" in done.out
    )
    assert done.out.endswith("next      tapps-otel resume two\n")


@pytest.mark.usefixtures("runs")
def test_a_completed_run_has_no_next_command(cli: Cli) -> None:
    done = cli("show", "one")

    assert "result    2\n" in done.out
    assert "next" not in done.out


@pytest.mark.usefixtures("runs")
def test_a_history_is_shown_as_json(cli: Cli) -> None:
    shown = json.loads(cli("show", "two", "--json").out)

    assert shown["status"] == "failed"
    assert shown["steps"][0]["result"] == 2
    assert shown["holder"] is None
    assert shown["next"] == ["resume two"]
    log = shown["log"]
    assert log["path"] == str((LOGS / "two.jsonl").absolute())
    assert (log["problem"], log["unfinished"], log["seq"]) == (None, None, shown["seq"])
    assert log["sha"] == (LOGS / "two.jsonl").read_text().splitlines()[-1][-66:-2]


@pytest.mark.parametrize(
    "options", [["--failed"], ["--step", "che*"], ["--agent", "critic"], ["--all", "--failed"]]
)
def test_json_has_only_the_steps_that_are_asked_for(cli: Cli, options: list[str]) -> None:
    write, check = (
        {"step_id": name, "step": name, "agent": agent}
        for name, agent in (("write", "writer"), ("check", "critic"))
    )
    log: list[dict[str, Any]] = [
        {"event_type": "workflow_start"},
        {"event_type": "step_start", **write},
        {"event_type": "step_finish", "status": "completed", **write},
        {"event_type": "step_start", **check},
        {"event_type": "step_fail", "status": "failed", **check},
    ]
    forge(LOGS, "r", log)

    def steps(*arguments: str) -> list[str]:
        shown = json.loads(cli("show", "r", "--json", *arguments).out)
        return [step["step_id"] for step in shown["steps"]]

    assert steps(*options) == ["check"]
    assert steps() == ["write", "check"]


@pytest.mark.usefixtures("runs")
def test_the_process_of_a_run_in_progress_is_shown(cli: Cli) -> None:
    log = LOGS / "two.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))  # it has not ended
    lease = Lease(LOGS / "two.lease", "two")
    try:
        shown = cli("show", "two").out
        held = json.loads(cli("show", "two", "--json").out)["holder"]
    finally:
        lease.release()

    assert f"now       in progress in process {os.getpid()} on " in shown
    assert shown.endswith("next      tapps-otel watch two\n")
    assert held["pid"] == os.getpid()


def test_steps_in_progress_are_shown_with_the_time_so_far(cli: Cli, shop: Path) -> None:
    lease = Lease(LOGS / "s.lease", "s")
    try:
        shown = cli("show", "s").out
    finally:
        lease.release()

    assert re.search(r"^status    in progress at ", shown, re.MULTILINE)
    assert re.search(r"^  … pay +[\d:.]+ +[\d.]+ (ms|s) +in progress$", shown, re.MULTILINE)
    assert "resume " not in shown
    assert ">= " not in shown


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "not begun"),
        ([{"event_type": "annotation", "name": "x"}], "not begun"),
        (
            [{"event_type": "step_start", "step_id": "a", "step": "a"}],
            "unknown: its start is not in the log",
        ),
        ([{"event_type": "workflow_start"}], "interrupted at "),
        (
            [
                {"event_type": "workflow_start", "timestamp": "2026-01-02T00:00:00.000000000Z"},
                {"event_type": "step_start", "step_id": "a", "timestamp": "2026-01-01T00:00:00Z"},
                {"event_type": "workflow_end", "status": "completed", "timestamp": "2025-01-01"},
            ],
            "completed at 2026-01-02 00:00:00 UTC",
        ),
    ],
)
def test_runs_without_a_start_or_steps_and_clocks_that_go_back(
    cli: Cli, events: list[dict[str, str]], status: str
) -> None:
    forge(LOGS, "r", events or [{"event_type": "something new"}])
    done = cli("show", "r")

    assert (done.code, done.err) == (0, "")
    assert f"\nstatus    {status}" in done.out


@pytest.mark.usefixtures("runs")
def test_a_log_that_is_damaged_in_the_middle_is_shown_up_to_there(cli: Cli) -> None:
    path = LOGS / "three.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[4].replace(b"wait", b"WAIT"), *lines[5:]]))
    done = cli("show", "three")

    assert done.code == 1
    assert "\nstatus    damaged at " in done.out
    assert "\naudit     damaged after seq 4: shown up to there\n" in done.out
    assert "killed" not in done.out


@pytest.mark.usefixtures("runs")
def test_a_log_with_an_unfinished_end_is_shown(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    done = cli("show", "one")

    assert done.code == 0
    assert "status    interrupted" in done.out
    assert "an unfinished line (no damage)" in done.out


@pytest.mark.usefixtures("runs")
def test_a_damaged_log_is_shown_up_to_the_damage(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\njunk\n")
    done = cli("show", "one")

    assert done.code == 1
    assert "✓ double" in done.out
    assert "next" not in done.out
    assert "damaged at byte " in done.err
    assert "damaged at byte " in json.loads(cli("show", "one", "--json").out)["log"]["problem"]


CALLING = """
from tapps_otel import step, workflow

@step
def work(number: int) -> int:
    return number

@workflow
def inner(number: int) -> int:
    return work(number)

@workflow
def outer(count: int) -> int:
    return sum(inner.options(workflow_id=f"i{number}")(number) for number in range(count))
"""


def test_a_run_leads_to_its_child_runs_and_they_lead_back(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "flow_calling.py").write_text(CALLING)
    cli("run", "flow_calling.py:outer", "-i", "[5]", "--id", "o", "--log-dir", "here")
    around = cli("show", "o", "--log-dir", "here").out

    assert "  ✓ inner#2  " in around
    assert "  run i1\n" in around
    command = next(line for line in around.splitlines() if line.startswith("child")).split()[1:]
    assert command == ["tapps-otel", "show", "i0", "--log-dir", "here"]
    assert "and 2 more child runs\n" in around
    inside = cli(*command[1:]).out
    assert "called by step inner of run o\n" in inside
    assert "parent    tapps-otel show o --log-dir here\n" in inside
    shown = json.loads(cli(*command[1:], "--json").out)
    assert shown["parent"]["workflow_id"] == "o"


def test_a_child_run_in_another_folder_is_shown_by_the_command_that_names_it(
    cli: Cli, tmp_path: Path
) -> None:
    here = CALLING.replace('f"i{number}")', 'f"i{number}", log_dir="far away")')
    (tmp_path / "flow_far.py").write_text(here)
    cli("run", "flow_far.py:outer", "-i", "[1]", "--id", "o", "--log-dir", "here")
    far = f"'{tmp_path / 'far away'}'"

    around = cli("show", "o", "--log-dir", "here").out
    assert f"child     tapps-otel show i0 --log-dir {far}\n" in around
    inside = cli("show", "i0", "--log-dir", "far away").out
    assert f"parent    tapps-otel show o --log-dir {tmp_path / 'here'}\n" in inside


LOSING = """
from tapps_otel import step, workflow


@step
def read() -> str:
    error = OSError("unreadable")
    error.file = open(__file__)
    error.file.close()
    raise error


@step
def note(text: str) -> str:
    return text


@workflow
def main() -> str:
    try:
        return read()
    except OSError as error:
        note(str(error))
        raise RuntimeError("no") from None
"""


def test_what_a_failure_has_lost_is_shown(cli: Cli) -> None:
    Path("flow_losing.py").write_text(LOSING, "utf-8")
    cli("run", "flow_losing.py:main", "--id", "a", "-q")
    shown = cli("show", "a").out
    (read, _) = json.loads(cli("show", "a", "--json").out)["steps"]

    assert read["lost"] == {"file": "an object of class _io.TextIOWrapper"}
    assert "\nlost  file  of read  an object of class _io.TextIOWrapper\nnot in the log: " in shown


@pytest.mark.parametrize("columns", sample([60, 100, 200], 2))
@pytest.mark.slow
def test_the_first_screen_answers_what_happened(killed: str, columns: int) -> None:
    text = "\n".join(displayed("show", killed, columns=columns))

    assert re.search(r"^status +completed at .*, after 2\s+executions$", text, re.MULTILINE)
    assert re.search(r"^killed +pay after at least ", text, re.MULTILINE)
    assert re.search(r"^  down +\d{4}-.* [\d.]+ m?s$", text, re.MULTILINE)
    assert re.search(r"^kept +1 step not run again: double$", text, re.MULTILINE)
    assert re.search(r"^costs +\w+ ", text, re.MULTILINE)
    assert re.search(r"^audit +chain intact, head [0-9a-f]{16}$", text, re.MULTILINE)
    assert re.findall(r"^  ✓ (\w+) .*\n(?:      attempt .*\n)*", text, re.MULTILINE) == [
        "double",
        "pay",
    ]


def test_it_is_readable_in_the_c_locale(killed: str) -> None:
    text = "\n".join(displayed("show", killed, columns=100, **C_LOCALE))

    assert text.isascii()
    assert re.search(r"^! execution 1 ", text, re.MULTILINE)
    assert re.search(r"^  \+ double ", text, re.MULTILINE)
    assert re.search(r"attempt 1 .* >= ", text)


def test_a_log_without_its_start_is_shown_and_cannot_be_resumed(cli: Cli) -> None:
    step = {"step_id": "a", "step": "a", "timestamp": "yesterday"}
    forge(LOGS, "r", [{"event_type": kind, **step} for kind in ("step_start", "step_finish")])
    shown = cli("show", "r").out

    assert "\nstatus    unknown: its start is not in the log\n" in shown
    assert re.search(r"^  ✓ a  \?  ", shown, re.MULTILINE)
    assert "\nresume    not possible: the run's start is not in the log\n" in shown
    assert "\nnext " not in shown
    assert "status    unknown: its start is not in the log\n" in cli("timeline", "r").out
    assert cli("resume", "r").code == 3


@pytest.mark.usefixtures("shop")
def test_an_interrupted_run_tells_what_a_resume_would_do(cli: Cli) -> None:
    done = cli("show", "s")

    assert "status    interrupted at " in done.out
    assert re.search(r"^  ! pay .* >= .* interrupted$", done.out, re.MULTILINE)
    assert "open      pay\n" in done.out
    assert "resume    continues at pay; 1 completed step will not run again\n" in done.out
    assert done.out.endswith("next      tapps-otel resume s\n")


@pytest.mark.usefixtures("runs")
def test_the_next_command_names_a_file_that_is_gone(cli: Cli, flow: Path) -> None:
    flow.unlink()

    assert cli("show", "two").out.endswith(
        f"next      {flow} is not there: find it, then tapps-otel resume two FILE.py:failing\n"
    )


EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e\u2028\r\n[link=x]\x00"


@pytest.mark.parametrize("arguments", [[], ["--verbose"], ["--all"], [EVIL.replace("\x00", "")]])
@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.exhaustive
def test_a_hostile_log_does_nothing_but_look_ugly(arguments: list[str], columns: int) -> None:
    log: list[dict[str, Any]] = [
        {"event_type": "workflow_start", "workflow": {"name": EVIL}, "inputs": {EVIL: EVIL}},
        {"event_type": "step_start", "step_id": EVIL, "step": EVIL, "agent": EVIL, "inputs": EVIL},
        {"event_type": "annotation", "name": EVIL, "step_id": EVIL, "attributes": {EVIL: EVIL}},
        {
            "event_type": "step_fail",
            "step_id": EVIL,
            "error": {"type": EVIL, "message": EVIL + "m" * 50_000, "stack": EVIL * 100},
            "artifacts": [{"path": EVIL, "bytes": 3}],
        },
        {"event_type": "workflow_end", "status": EVIL, "error": {"type": EVIL, "message": EVIL}},
    ]
    forge(LOGS, "r", log)
    screen = pyte.Screen(columns, 80)
    text = on_terminal("show", "r", *arguments, columns=columns)
    pyte.Stream(screen).feed(text)

    assert screen.title == ""
    assert not set(re.sub(r"\x1b\[[\d;]*m", "", text)) & {"\x1b", "\x9b", "\x07", "\u202e", "\x00"}
    if not arguments:
        assert "run       r" in screen.display[0]  # it fits, and nothing was cleared


ONE_STEP = """
from tapps_otel import annotate, step, workflow

@step(retries=1, agent="net", action="get", key=lambda url: f"key of {url}")
def fetch(url: str) -> dict[str, int]:
    annotate("asked", url=url)
    if not tries:
        tries.append(url)
        raise ValueError("not yet")
    return {"length": len(url)}

tries = []

@workflow
def main() -> int:
    return sum(fetch(url)["length"] for url in ("https://example.org/", "x"))
"""


@pytest.mark.slow
def test_one_step_is_shown_whole(cli: Cli) -> None:
    Path("flow_one.py").write_text(ONE_STEP, "utf-8")
    assert child("run", "flow_one.py:main", "--id", "a", "-q").code == 0
    shown = cli("show", "a", "fetch").out
    data = json.loads(cli("show", "a", "fetch", "--json").out)

    assert "\nagent     net\naction    get\nkey       key of https://example.org/\n" in shown
    assert re.search(r"^took      .*, and waited .*, in 2 attempts$", shown, re.MULTILINE)
    assert '\nresult    {\n            "length": 20\n          }\n' in shown
    assert re.search(r"^✗ attempt 1 .* 1, failed, ValueError: not yet, then", shown, re.MULTILINE)
    assert '    raise ValueError("not yet")\n' in shown
    assert re.search(r"^✓ attempt 2 .* execution 1, completed$", shown, re.MULTILINE)
    assert shown.count("note  asked  seq ") == 2
    assert data["result"] == {"length": 20}
    assert [one["status"] for one in data["attempts"]] == ["failed", "completed"]
    assert len(data["annotations"]) == 2


def test_the_worker_that_executed_a_step_is_shown(cli: Cli) -> None:
    Path("flow_pool.py").write_text(
        "import os\nfrom concurrent.futures import ProcessPoolExecutor\n\n"
        "from tapps_otel import bind, step, workflow\n\n"
        "@step\ndef where() -> int:\n    return os.getpid()\n\n"
        "@workflow\ndef main() -> int:\n    with bind(ProcessPoolExecutor(1)) as pool:\n"
        "        return pool.submit(where).result()\n",
        "utf-8",
    )
    assert child("run", "flow_pool.py:main", "--id", "a", "-q").code == 0
    data = json.loads(cli("show", "a", "where", "--json").out)
    (worker,) = [one["worker"] for one in data["attempts"]]

    assert worker["pid"] == data["result"]
    place = re.escape(f"process {worker['pid']} on {worker['host']}")
    spent = r"for [0-9.]+ m?s; [0-9.]+ m?s besides"
    assert re.search(f"\n    executed by {place}, {spent}\n", cli("show", "a", "where").out)
    assert 0 <= worker["duration"] <= worker["duration"] + worker["wait"]


@pytest.mark.parametrize(("pid", "seconds"), [("7", 1), (7, 1e300), (7, -1)])
def test_a_worker_of_a_made_up_log_is_not_shown(cli: Cli, pid: object, seconds: float) -> None:
    one = {"step_id": "a", "step": "a", "attempt": 1}
    start = {**one, "event_type": "step_start", "attributes": {"tapps.engine": "Pool"}}
    worker = {"host": "there", "pid": pid, "duration": seconds, "wait": 0}
    attributes = {f"tapps.worker.{name}": value for name, value in worker.items()}
    end = {**one, "event_type": "step_finish", "attributes": attributes}
    forge(LOGS, "r", [{"event_type": "workflow_start"}, start, end])

    done = cli("show", "r", "a")
    assert (done.code, done.err) == (0, "")
    assert "executed by" not in done.out


def test_a_step_is_found_by_its_name_if_no_other_has_it(cli: Cli) -> None:
    log = [{"event_type": "step_start", "step_id": one, "step": one[-1]} for one in ("a", "a/b")]
    forge(LOGS, "r", [{"event_type": "workflow_start"}, *log, {**log[0], "step_id": "a#2"}])

    assert cli("show", "r", "b").out.startswith("step      a/b\n")
    assert cli("show", "r", "a").out.startswith("step      a\n")
    done = cli("show", "r", "c")
    assert done.code == 2
    assert "run 'r' has no step 'c'. Its steps: 'a', 'a/b', 'a#2'\n" in done.err


def test_captured_spans_of_a_step_are_shown(cli: Cli) -> None:
    span = {"event_type": "span", "span_id": "0b" * 8, "parent_span_id": "0a" * 8}
    start = {"event_type": "step_start", "step_id": "draft", "step": "draft", "span_id": "0a" * 8}
    inner = {**span, "span_id": "0c" * 8, "parent_span_id": "0b" * 8, "name": "inside it"}
    other = {**span, "parent_span_id": "0d" * 8, "name": "elsewhere"}
    far = {**span, "span_id": "0e" * 8, "name": "of another process", "duration_ns": 10**6}
    forge(LOGS, "r", [far]).rename(LOGS / "r+0123abcd.jsonl")
    begin = {"event_type": "workflow_start"}
    forge(LOGS, "r", [begin, start, {**span, "name": "GET"}, inner, other])
    shown = cli("show", "r", "draft").out

    assert [line.split("  ")[3] for line in shown.splitlines() if line.startswith("span")] == [
        "of another process",
        "GET",
        "inside it",
    ]


def test_a_large_value_is_read_and_its_loss_is_told(cli: Cli) -> None:
    Path("flow_large.py").write_text(
        "from tapps_otel import step, workflow\n\n"
        "@step\ndef large() -> list[str]:\n    return ['x' * 1000] * 200\n\n"
        "@workflow\ndef main() -> None:\n    large()\n"
    )
    assert cli("run", "flow_large.py:main", "--id", "a", "-q").code == 0
    shown, whole = cli("show", "a", "large").out, cli("show", "a", "large", "-v").out

    assert "(172 more lines: --verbose)\n" in shown
    assert whole.count("x" * 1000) == 200
    next((LOGS / "a.blobs").iterdir()).unlink()
    assert re.search(r"^result    /.*a\.blobs/", cli("show", "a", "large").out, re.MULTILINE)


@pytest.mark.slow
def test_verbose_shows_each_step_whole(cli: Cli) -> None:
    Path("flow_one.py").write_text(ONE_STEP, "utf-8")
    assert child("run", "flow_one.py:main", "--id", "a", "-q").code == 0
    shown = cli("show", "a", "--verbose", "--step", "fetch").out

    assert shown.count("\nstep      fetch") == 2
    assert '    raise ValueError("not yet")\n' in shown
    assert cli("show", "a").out.count("\nstep ") == 0


def lines_executed(call: Callable[[], object]) -> int:
    """How many lines of the commands and reports a call executes."""
    count, before = 0, sys.gettrace()

    def trace(frame: FrameType, what: str, _: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.endswith(("cli/show.py", "report/one_step.py")):
            return None
        count += what == "line"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_verbose_takes_linear_time_in_steps_and_annotations(cli: Cli) -> None:
    def effort(count: int) -> int:
        steps = [{"step_id": f"s#{at}", "step": "s"} for at in range(count)]
        kinds = ("step_start", "annotation", "step_finish")
        events = [{"event_type": kind, "name": "n", **one} for one in steps for kind in kinds]
        forge(LOGS, f"r{count}", [{"event_type": "workflow_start"}, *events])
        return lines_executed(lambda: cli("show", f"r{count}", "--verbose"))

    assert effort(400) < 5 * effort(100)


STORED = """
import os

from tapps_otel import step, workflow


@step
def price() -> int:
    return 3


@step
def guess() -> str:
    open("guessed.txt", "w").close()
    return "about 3"


@workflow
def main() -> str:
    try:
        found = str(price())
    except Exception:
        found = guess()
    if not os.path.exists("ready.txt"):
        raise RuntimeError("not yet")
    return found
"""


def test_a_result_that_no_longer_fits_stops_a_resume_and_show_says_so(cli: Cli) -> None:
    """No handler of the workflow hides that: it would take another way than before."""
    flow = Path("flow_stored.py")
    flow.write_text(STORED, "utf-8")
    cli("run", "flow_stored.py:main", "--id", "a", "-q")
    flow.write_text(STORED.replace("int:\n    return 3", 'str:\n    return "4"'), "utf-8")
    Path("ready.txt").touch()
    refused = child("resume", "a")

    assert refused.code == 5
    assert "`tapps-otel resolve a price --rerun`" in refused.err
    assert not Path("guessed.txt").exists()
    assert cli("show", "a").out.endswith("next      tapps-otel resolve a price --rerun\n")
    assert "resume    refused until price is resolved\n" in cli("show", "a").out

    assert cli("resolve", "a", "price", "--rerun").code == 0
    assert cli("show", "a").out.endswith("next      tapps-otel resume a\n")
    assert child("resume", "a").out == '"4"\n'
