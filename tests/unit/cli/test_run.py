"""The command ``run``."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import programs
from commands import LOGS, Cli, child, command, environment, wait_for
from tapps_otel.run.queries import list_runs


def test_the_result_is_on_standard_output_and_progress_on_standard_error(cli: Cli) -> None:
    done = cli("run", "flow.py:small", "--id", "a", "--input", '{"number": 4}')

    assert done.code == 0
    assert done.out == "the workflow prints this\n8\n"
    assert "✓ double  " in done.err
    assert "✓ a completed in " in done.err
    assert ", 1 step\n" in done.err


def test_quiet_shows_no_progress(cli: Cli) -> None:
    done = cli("run", "flow.py:small", "-q")

    assert (done.code, done.err) == (0, "")


def test_a_run_without_an_id_gets_one(cli: Cli) -> None:
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
def test_inputs_are_given_by_name_or_by_position(cli: Cli, inputs: str, result: str) -> None:
    assert cli("run", "flow.py:small", "-i", inputs).out.endswith(f"\n{result}\n")


def test_inputs_are_converted_by_the_annotations(cli: Cli) -> None:
    assert cli("run", "flow.py:typed", "-i", '[{"title": "ä", "number": 2}]').out == '"ää"\n'


def test_an_annotation_that_cannot_be_resolved_is_named(cli: Cli, flow: Path) -> None:
    with flow.open("a", encoding="utf-8") as file:
        file.write('\n\n@workflow\ndef odd(number: "Unknown") -> None: ...\n')
    done = cli("run", "flow.py:odd", "-i", "[2]")

    assert done.code == 2
    assert "its annotation 'Unknown' cannot be resolved" in done.err


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


def test_a_disabled_library_runs_and_reports_that_there_is_no_log(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_OTEL_ENABLED", "0")
    done = cli("run", "flow.py:small")

    assert done.out.endswith("2\n")
    assert "no log was written" in done.err


def test_the_log_folder_can_be_chosen(cli: Cli, tmp_path: Path) -> None:
    cli("run", "flow.py:small", "--id", "a", "--log-dir", "elsewhere")

    assert (tmp_path / "elsewhere" / "a.jsonl").exists()
    assert cli("resume", "a", "--log-dir", "elsewhere").out == "2\n"


def test_a_failed_workflow_shows_where_and_how_to_resume(cli: Cli) -> None:
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


def test_each_attempt_is_shown(cli: Cli, flow: Path) -> None:
    with flow.open("a") as file:
        file.write("\n\n@workflow\ndef trying() -> str:\n    return flaky() + maybe()\n")
    done = cli("run", "flow.py:trying")

    assert "ValueError: not yet, retry in " in done.err
    assert "✓ flaky  " in done.err
    assert "- maybe  " in done.err
    assert done.out == '"nownothing"\n'


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
        (
            ["flow.py:small", "-i", '{"number": "x"}'],
            2,
            "$.number: Input should be a valid integer",
        ),
        (["flow.py:typed", "-i", "[{}]"], 2, "$.page.title: Field required"),
        (["flow.py:typed"], 2, "missing a required argument: 'page'"),
        (["flow.py:small", "-i", "@nowhere.json"], 2, "--input cannot be read"),
    ],
)
def test_errors_of_run(cli: Cli, arguments: list[str], code: int, said: str) -> None:
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


def test_a_file_instead_of_the_log_folder_is_an_error(cli: Cli) -> None:
    Path("file").touch()
    done = cli("run", "flow.py:small", "--log-dir", "file")

    assert done.code == 6
    assert "cannot write to the log" in done.err


def test_a_run_of_another_process_is_busy(cli: Cli) -> None:
    with programs.Popen(
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
