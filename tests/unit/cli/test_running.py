from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import LOGS, Cli, Done, child, command, environment
from tapps_otel import history
from tapps_otel.run.queries import list_runs


def killed_in_pay() -> None:
    """Leave a run behind that was killed inside its payment."""
    assert child("run", "flow.py:shop", "--id", "s", "--quiet").code == -signal.SIGKILL


# ---------------------------------------------------------------- what runs, and what is written


def test_the_result_is_on_standard_output_and_progress_on_standard_error(cli: Cli) -> None:
    done = cli("run", "flow.py:small", "--id", "a", "--input", '{"number": 4}')

    assert done.code == 0
    assert done.out == "the workflow prints this\n8\n"
    assert "✓ double  " in done.err
    assert "✓ a completed in " in done.err
    assert ", 1 step\n" in done.err


def test_quiet_is_quiet(cli: Cli) -> None:
    done = cli("run", "flow.py:small", "-q")

    assert (done.code, done.err) == (0, "")


def test_a_run_without_a_name_gets_one(cli: Cli) -> None:
    cli("run", "flow.py:small")

    (found,) = list_runs()
    assert found.workflow_id.startswith("small-")


def test_async_workflows_run(cli: Cli) -> None:
    done = cli("run", "flow.py:wide", "--input", "[2]")

    assert json.loads(done.out) == [0.0, 0.01]
    assert "· note note" in done.err


@pytest.mark.parametrize(
    ("inputs", "result"),
    [('{"number": 2}', "4"), ('{"add": 5}', "7"), ("[3, 1]", "7"), ("[]", "2"), (" {} ", "2")],
)
def test_inputs_are_given_by_name_or_by_place(cli: Cli, inputs: str, result: str) -> None:
    assert cli("run", "flow.py:small", "-i", inputs).out.endswith(f"\n{result}\n")


def test_inputs_become_what_the_annotations_say(cli: Cli) -> None:
    assert cli("run", "flow.py:typed", "-i", '[{"title": "ä", "number": 2}]').out == '"ää"\n'


def test_inputs_come_from_a_file_or_standard_input(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("inputs.json").write_text('{"number": 5}', "utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"number": 6}'))

    assert cli("run", "flow.py:small", "-i", "@inputs.json").out.endswith("10\n")
    assert cli("run", "flow.py:small", "-i", "-").out.endswith("12\n")


def test_a_module_is_found_in_the_working_directory() -> None:
    assert child("run", "flow:small", "--quiet").out.endswith("2\n")


def test_a_named_run_that_has_completed_gives_its_stored_result(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")
    again = cli("run", "flow.py:small", "--id", "a")

    assert again.out == "2\n"
    assert "had completed: its stored result" in again.err
    assert Path("double.txt").read_text("utf-8") == "x"


def test_switched_off_it_runs_and_says_that_there_is_no_log(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_OTEL_ENABLED", "0")
    done = cli("run", "flow.py:small")

    assert done.out.endswith("2\n")
    assert "no log was written" in done.err


def test_the_logs_are_where_they_are_told_to_be(cli: Cli, tmp_path: Path) -> None:
    cli("run", "flow.py:small", "--id", "a", "--log-dir", "elsewhere")

    assert (tmp_path / "elsewhere" / "a.jsonl").exists()
    assert cli("resume", "a", "--log-dir", "elsewhere").out == "2\n"


# ---------------------------------------------------------------- failing


def test_a_workflow_that_fails_shows_where_and_how_to_go_on(cli: Cli) -> None:
    done = cli(
        "run", "flow.py:failing", "--id", "a", "-i", '["\\u001b[2J"]', "--log-dir", "my logs"
    )

    assert done.code == 1
    assert r"✗ a failed after " in done.err
    assert r"RuntimeError: \x1b[2J" in done.err
    assert 'flow.py", line ' in done.err
    assert "raise RuntimeError(message)" in done.err
    assert "Traceback" not in done.err
    assert "tapps_otel/run" not in done.err  # frames of the library say nothing to its user
    assert done.err.endswith("next: tapps-otel resume a --log-dir 'my logs'\n")


def test_a_result_that_cannot_be_stored_is_named_by_its_path(cli: Cli) -> None:
    done = cli("run", "flow.py:unstorable")

    assert done.code == 1
    assert "$.page.handle: builtin_function_or_method" in done.err


def test_each_try_is_told(cli: Cli, flow: Path) -> None:
    with flow.open("a") as file:
        file.write("\n\n@workflow\ndef trying() -> str:\n    return flaky() + maybe()\n")
    done = cli("run", "flow.py:trying")

    assert "ValueError: not yet, retry in " in done.err
    assert "✓ flaky  " in done.err
    assert "- maybe  " in done.err
    assert done.out == '"nownothing"\n'


# ---------------------------------------------------------------- going on


def test_a_failed_run_goes_on_with_its_inputs(cli: Cli, flow: Path) -> None:
    cli("run", "flow.py:failing", "--id", "a", "-i", '["why"]')
    flow.write_text(
        flow.read_text("utf-8").replace("raise RuntimeError(message)", "return message")
    )
    done = child("resume", "a")

    assert (done.code, done.out) == (0, '"why"\n')
    assert Path("double.txt").read_text("utf-8") == "x"


def test_a_run_is_resumed_from_another_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("run", "flow.py:small", "--id", "a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert child("resume", "a", "--log-dir", f"../{LOGS}").out == "2\n"


def test_the_last_run_is_resumed(cli: Cli) -> None:
    cli("run", "flow.py:small", "--id", "a")
    cli("run", "flow.py:small", "--id", "b", "-i", "[7]")

    assert cli("resume", "--last").out == "14\n"


def test_a_resume_shows_only_what_is_new() -> None:
    killed_in_pay()
    Path("paid.txt").touch()
    cleared = child("resolve", "s", "pay", "--rerun")
    done = child("resume", "s")

    assert cleared.code == 0
    assert (done.code, done.out) == (0, '"paid"\n')
    assert "double" not in done.err
    assert "! pay  was in progress when its process ended\n✓ pay  " in done.err


# ---------------------------------------------------------------- refusing


def test_changed_inputs_of_a_step_are_refused(cli: Cli) -> None:
    cli("run", "flow.py:clock", "--id", "a")
    done = cli("resume", "a")

    assert done.code == 5
    assert done.err.count("error: step 'double' was called with other inputs") == 1


def test_an_interrupted_payment_is_refused() -> None:
    killed_in_pay()
    done = child("resume", "s")

    assert done.code == 5
    assert "tapps-otel resolve s pay --result JSON" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["flow.py:small", "--id", "other"],
            5,
            "belongs to workflow 'wide', not to workflow 'small'",
        ),
        (["flow.py:wide", "--id", "other", "-i", "[9]"], 5, "began with other inputs"),
        (["flow.py:small", "--id", "../x"], 2, "cannot be a run id"),
        (["flow.py:small", "--id", "a\x1bb"], 2, r"'a\x1bb' cannot be a run id"),
        (["flow.py:nothing"], 2, "cannot import 'nothing'"),
        (["flow.py:no_workflow"], 2, "is a function, not a function with @workflow"),
        (["nowhere:x"], 2, "No module named 'nowhere'"),
        (["nowhere.py:x"], 2, "FileNotFoundError"),
        (["flow.py"], 2, "'flow.py' is not MODULE:FUNCTION, as flow.py:main"),
        (["broken.py:x"], 2, "SyntaxError: invalid syntax (broken.py, line 1)"),
        (["fails.py:x"], 2, "ZeroDivisionError: division by zero"),
        (["flow.py:small", "-i", "{"], 2, "--input is not JSON"),
        (["flow.py:small", "-i", "NaN"], 2, "NaN is not JSON"),
        (["flow.py:small", "-i", "[" * 100_000], 2, "--input is not JSON"),
        (["flow.py:small", "-i", "3"], 2, "an object of arguments, or a list"),
        (["flow.py:small", "-i", "[1, 2, 3]"], 2, "takes 2 arguments (number, add), not 3"),
        (["flow.py:small", "-i", '{"size": 1}'], 2, "it has no parameter ['size']"),
        (["flow.py:small", "-i", '{"number": "x"}'], 2, "$.number: str does not match"),
        (["flow.py:typed", "-i", "[{}]"], 2, "Field required"),
        (["flow.py:typed"], 2, "missing a required argument: 'page'"),
        (["flow.py:small", "-i", "@nowhere.json"], 2, "--input cannot be read"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_place(
    cli: Cli, arguments: list[str], code: int, said: str
) -> None:
    Path("broken.py").write_text("def f(:\n", "utf-8")
    Path("fails.py").write_text("1 / 0\n", "utf-8")
    cli("run", "flow.py:wide", "--id", "other")
    before = sorted(LOGS.iterdir())
    done = cli("run", *arguments)

    assert done.code == code
    assert done.err.startswith("error: ")
    assert said in done.err
    assert "Traceback" not in done.err
    assert sorted(LOGS.iterdir()) == before


def test_where_an_import_failed_is_shown(cli: Cli) -> None:
    Path("fails.py").write_text("def f():\n    return 1 / 0\nf()\n", "utf-8")

    assert "line 2, in f\n    return 1 / 0\n" in cli("run", "fails.py:x").err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 3, "no run 'nobody' in "),
        (["--last"], 3, "no runs in "),
        ([], 2, "give the id of a run, or --last"),
        (["a", "--last"], 2, "give the id of a run, or --last"),
        (["a/b"], 2, "cannot be a run id"),
    ],
)
def test_what_cannot_be_resumed_is_said(
    cli: Cli, arguments: list[str], code: int, said: str
) -> None:
    done = cli("resume", *arguments)

    assert done.code == code
    assert done.err.startswith(f"error: {said}" if code == 3 else "error: ")
    assert said in done.err


def test_a_run_whose_workflow_is_gone_cannot_be_resumed(cli: Cli, flow: Path) -> None:
    cli("run", "flow.py:failing", "--id", "a")
    flow.unlink()
    done = child("resume", "a")

    assert done.code == 5
    assert "error: run 'a': cannot import 'failing'" in done.err


def test_a_damaged_log_is_not_gone_on_with(cli: Cli) -> None:
    cli("run", "flow.py:failing", "--id", "a")
    path = LOGS / "a.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"double"', b'"treble"', 1))
    done = cli("resume", "a")

    assert done.code == 6
    assert "damaged at byte " in done.err
    assert "tapps-otel repair" in done.err
    assert "✓" not in done.err


def test_a_file_where_the_folder_should_be(cli: Cli) -> None:
    Path("file").touch()
    done = cli("run", "flow.py:small", "--log-dir", "file")

    assert done.code == 6
    assert "cannot write to the log" in done.err


def test_a_run_that_another_process_carries_on_is_busy(cli: Cli) -> None:
    with subprocess.Popen(
        command("run", "-q", "flow.py:waiting", "--id", "a"), env=environment(), text=True
    ) as other:
        wait_for(Path("waiting.txt"), other)
        done = cli("run", "flow.py:waiting", "--id", "a")
        listed = cli("list", "--status", "running")
        shown = cli("show", "a")
        other.kill()

    assert done.code == 4
    assert f"process {other.pid} on " in done.err
    assert "running" in listed.out
    assert f"now       in progress in process {other.pid} on " in shown.out
    assert "open      wait" in shown.out


# ---------------------------------------------------------------- interrupted


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        if process.poll() is not None:
            pytest.fail(f"it ended before that: {process.communicate()}")
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.1)


def signalled(workflow: str, number: signal.Signals) -> Done:
    # Who runs the tests in the background of a shell has them ignore Ctrl-C; a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command("run", f"flow.py:{workflow}", "--id", "a"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        signal.signal(signal.SIGINT, before)
        wait_for(Path("waiting.txt"), other)
        other.send_signal(number)
        out, err = other.communicate(timeout=20)
    return Done(other.returncode, out, err)


@pytest.mark.parametrize("workflow", ["waiting", "sleeping"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_recorded_as_an_interruption(
    workflow: str, number: signal.Signals, code: int
) -> None:
    done = signalled(workflow, number)

    assert done.code == code
    assert "next: " in done.err
    assert "Traceback" not in done.err
    assert history("a").status == "interrupted"


def test_ctrl_c_in_an_awaited_step_is_seen_there() -> None:
    signalled("waiting", signal.SIGINT)

    error = history("a").by_id["wait"].last.error
    assert error is not None
    assert error["type"] == "KeyboardInterrupt"


SCRIPT = """
import os
from tapps_otel import step, workflow


class Refused(Exception):
    pass


@step
def ask() -> str:
    raise Refused("no")


@step
def note(text: str) -> str:
    if os.environ.get("DIE"):
        os._exit(9)
    return text


@workflow
def flow() -> str:
    try:
        return ask()
    except Refused as error:
        return note(f"refused: {error}")


if __name__ == "__main__":
    flow.options(workflow_id="r")()
"""


def test_a_script_goes_on_by_the_command_line_down_the_same_branch() -> None:
    """Its classes are those of ``__main__`` first, and of a module of its own then."""
    Path("script.py").write_text(SCRIPT)
    dying = environment(DIE="1")
    assert subprocess.run([sys.executable, "script.py"], env=dying, check=False).returncode == 9

    resumed = child("resume", "r")
    assert resumed.code == 0, resumed.err
    assert "refused: no" in resumed.out
