"""``watch``, and the view that ``run`` and ``resume`` have in common with it."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import programs
from commands import LOGS, Cli, child, command, environment, wait_for
from effort import sample
from logs import forge
from tapps_otel.log.lease import Lease
from terminals import C_LOCALE, Terminal

pytestmark = pytest.mark.slow  # most of them start processes

HELD = """

@step(agent="keeper")
def hold() -> str:
    Path(f"holding-{os.getpid()}.txt").touch()
    while not Path("go.txt").exists():
        time.sleep(0.02)
    return "held"


@workflow
def held() -> str:
    double(1)
    return hold()


@workflow
def many(count: int = 2000) -> int:
    return sum(double(number) for number in range(count))
"""


@pytest.fixture(autouse=True)
def _held(flow: Path) -> None:
    with flow.open("a") as file:
        file.write(HELD)


@contextmanager
def executing(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Execute a run in a process of its own, which holds in the middle of a step."""
    with programs.Popen(
        command(*arguments, "-q"), env=environment(TAPPS_OTEL_DURABILITY="os"), text=True
    ) as process:
        try:
            wait_for(Path(f"holding-{process.pid}.txt"), process)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("columns", sample([60, 100, 200], 2))
def test_a_run_is_watched_over_a_crash_and_a_resume(columns: int) -> None:
    with (
        executing("run", "flow.py:held", "--id", "a") as first,
        Terminal("watch", "a", columns=columns) as terminal,
    ):
        terminal.wait_for(r"^… a  \d.* s  held, execution 1")
        terminal.wait_for(r"^  1 step finished, 1 running$")
        terminal.wait_for(r"^  … hold  +\d+\.\d s  keeper$")
        terminal.wait_for(r"^  ✓ double  ")
        first.kill()
        terminal.wait_for(r"^! a  interrupted: waiting for its resume")
        terminal.wait_for(r"^! interrupted in the middle of hold: held, execution 1")
        terminal.wait_for(r"^  … hold  +cut off  keeper$")
        with executing("resume", "a") as second:
            terminal.wait_for(r"^… held, execution 2, process \d+ on ")
            terminal.wait_for(r"^  … hold  +\d+\.\d s  keeper, attempt 2$")
            Path("go.txt").touch()
            assert terminal.wait() == 0
            assert second.wait(60) == 0
    lines = [line for line in terminal.lines if line]

    assert lines[-1].startswith("✓ a completed after ")
    assert lines[-1].endswith("s, 2 steps finished")
    beginnings = ("! interr", "… held, ", "! hold  ", "✓ hold  ", "✓ a comp")
    assert [line[:8] for line in lines if line.startswith(beginnings)] == [*beginnings]


def test_it_is_readable_in_the_c_locale() -> None:
    with (
        executing("run", "flow.py:held", "--id", "a"),
        Terminal("watch", "a", env=C_LOCALE) as terminal,
    ):
        terminal.wait_for(r"^~ a  \d.* s  held, execution 1")
        terminal.wait_for(r"^  ~ hold  +\d+\.\d s  keeper$")
        Path("go.txt").touch()
        assert terminal.wait() == 0

    assert terminal.text.isascii()
    assert "+ a completed after " in terminal.text


def test_ctrl_c_ends_the_watching_and_not_the_run() -> None:
    with executing("run", "flow.py:held", "--id", "a") as run, Terminal("watch", "a") as terminal:
        terminal.wait_for(r"^  … hold")
        terminal.process.send_signal(signal.SIGINT)

        assert terminal.wait() == 130
        assert "stopped watching: the run is not affected" in terminal.text
        assert run.poll() is None
        Path("go.txt").touch()
        assert run.wait(60) == 0


def test_a_replaced_log_is_read_anew(cli: Cli) -> None:
    with executing("run", "flow.py:held", "--id", "a"), Terminal("watch", "a") as terminal:
        terminal.wait_for(r"^  … hold")
        other = forge(
            Path("other"),
            "a",
            [
                {"event_type": "workflow_start", "workflow": {"name": "from a backup"}},
                {"event_type": "step_start", "step_id": "restored", "step": "restored"},
            ],
        )
        other.replace(LOGS / "a.jsonl")
        terminal.wait_for(r"^! the log was replaced, and is read anew$")
        terminal.wait_for(r"^… a  .*  from a backup, execution 1$")
        terminal.wait_for(r"^  … restored")


def test_the_first_event_of_a_log_has_no_time_after_another(cli: Cli) -> None:
    path = forge(LOGS, "a", [{"event_type": "workflow_start", "workflow": {"name": "x"}}])
    first = path.read_bytes()
    with Terminal("watch", "a") as terminal:
        terminal.wait_for(r"waiting for its resume")
        path.unlink()
        terminal.wait_for(r"waiting for another")
        path.touch()
        terminal.wait_for(r"waiting for its resume")
        path.write_bytes(first)
        terminal.wait_for(r"^… x, execution 1$")


def test_a_log_that_was_removed_may_come_back(cli: Cli) -> None:
    with executing("run", "flow.py:held", "--id", "a"), Terminal("watch", "a") as terminal:
        terminal.wait_for(r"^  … hold")
        (LOGS / "a.jsonl").rename("a.jsonl")
        terminal.wait_for(r"^! a  its log was removed: waiting for another")
        shutil.move("a.jsonl", LOGS / "a.jsonl")
        terminal.wait_for(r"^  … hold")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        ("one", 0, "✓ one completed after "),
        ("two", 1, ": RuntimeError: boom\n  next: tapps-otel resume two\n"),
    ],
)
def test_the_exit_code_is_that_of_the_run(cli: Cli, run: str, code: int, said: str) -> None:
    done = cli("watch", run)

    assert (done.code, done.err) == (code, "")
    assert said in done.out


def test_a_missing_run_is_an_error(cli: Cli) -> None:
    assert cli("watch", "nobody").code == 3


def test_without_waiting_it_ends_with_the_process(cli: Cli, shop: Path) -> None:
    done = cli("watch", "s", "--no-wait")

    assert done.code == 130
    assert "! s interrupted, 1 step finished\n  next: tapps-otel resume s\n" in done.out


def test_a_paused_run_has_ended(cli: Cli) -> None:
    forge(
        LOGS,
        "p",
        [{"event_type": "workflow_start"}, {"event_type": "workflow_end", "status": "paused"}],
    )

    assert cli("watch", "p").code == 5


def test_elsewhere_than_on_a_terminal_lines_tell_what_happens(cli: Cli) -> None:
    with (
        executing("run", "flow.py:held", "--id", "a"),
        programs.Popen(
            command("watch", "a"), env=environment(), stdout=subprocess.PIPE, text=True
        ) as watch,
    ):
        assert watch.stdout is not None
        first, second = watch.stdout.readline(), watch.stdout.readline()
        Path("go.txt").touch()
        rest = watch.stdout.read()

    assert first.startswith("a  held, execution 1, process ")
    assert second == "  1 step finished, 1 running\n"
    assert [line[:6] for line in rest.splitlines()] == ["✓ hold", "✓ a co"]


@pytest.mark.usefixtures("runs")
def test_an_end_that_lacks_only_its_newline_is_an_end(cli: Cli) -> None:
    path = LOGS / "one.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    done = cli("watch", "one", "--no-wait")

    assert done.code == 0
    assert "✓ one completed after " in done.out


def test_what_is_before_a_damage_is_told(cli: Cli) -> None:
    cli("run", "flow.py:wide", "--id", "a")
    path = LOGS / "a.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-3], b"junk\n", *lines[-2:]]))
    done = cli("watch", "a")

    assert done.code == 6
    assert "✗ a damaged; before the damage:\n  " in done.out
    assert "damaged at byte " in done.err


@pytest.mark.parametrize(
    "events",
    [
        [{"event_type": "annotation", "name": "no start"}],
        [{"event_type": "step_start", "step_id": "a"}],
        [{"event_type": "workflow_start", "timestamp": "2999-01-01T00:00:00.000000000Z"}],
        [{"event_type": "workflow_start"}, {"event_type": "log_gap"}],
    ],
)
def test_runs_of_odd_forms_are_watched(cli: Cli, events: list[dict[str, object]]) -> None:
    forge(LOGS, "odd", events)
    done = cli("watch", "odd", "--no-wait")

    assert done.code == 130
    assert "! odd interrupted" in done.out


def test_a_run_that_another_process_has_just_begun_is_in_progress(cli: Cli, tmp_path: Path) -> None:
    forge(LOGS, "a", [{"event_type": "workflow_start", "workflow": {"name": "x"}}])
    lease = Lease(LOGS / "a.lease", "a")
    try:
        with Terminal("watch", "a", "--no-wait") as terminal:
            terminal.wait_for(r"^… a  .* x, execution 1$")
            lease.release()
            assert terminal.wait() == 130
    finally:
        lease.release()


def test_two_thousand_steps_are_not_two_thousand_lines() -> None:
    done = child("run", "flow.py:many", "--id", "a", TAPPS_OTEL_DURABILITY="os")
    lines = done.err.splitlines()

    assert done.code == 0
    assert len(lines) < 60
    assert [line for line in lines if line.endswith("so far")][-1].startswith("  10")
    assert "  … and 1970 more lines: show has every step" in lines
    assert lines[-1].startswith("✓ a completed in ")
    assert lines[-1].endswith(", 2000 steps")


def test_a_failure_is_shown_however_many_steps_went_well(flow: Path) -> None:
    with flow.open("a") as file:
        file.write("\n\n@workflow\ndef late() -> None:\n    many.__wrapped__(50)\n    flaky()\n")
    done = child("run", "flow.py:late", TAPPS_OTEL_DURABILITY="os")

    assert "✗ flaky  " in done.err
    assert "double#31" not in done.err


def test_run_has_the_same_view() -> None:
    with Terminal("run", "flow.py:held", "--id", "a") as terminal:
        terminal.wait_for(r"^… a  \d.* s  held, execution 1, process \d+ on ")
        terminal.wait_for(r"^  … hold  +\d+\.\d s  keeper$")
        Path("go.txt").touch()
        assert terminal.wait() == 0

    assert [line[:8] for line in terminal.lines if line] == [
        "✓ double", "✓ hold  ", "✓ a comp", '"held"',
    ]  # fmt: skip
