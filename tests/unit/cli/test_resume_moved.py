"""Which code a resume runs: of projects that were copied or moved, and of code in no file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from textwrap import indent

import pytest

import programs
from commands import LOGS, Cli, Done, child, environment
from effort import sample
from tapps_otel import Run, history, resume

pytestmark = pytest.mark.slow

# The step that dies tells, once it runs again, which copy of the code ran.
FLOW = """
import os

from tapps_otel import step, workflow


@step
def first() -> str:
    return "first"


@step
def second() -> str:
    if os.environ.get("DIE"):
        os._exit(9)
    if os.environ.get("FAIL"):
        raise RuntimeError("no")
    return "the original"


@workflow
def flow() -> str:
    first()
    return second()
"""
CALL = 'flow.options(workflow_id="r")()\n'
MAIN = f'\n\nif __name__ == "__main__":\n    {CALL}'


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the working directory."""
    folder = tmp_path / "original"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, "utf-8")


def python(*arguments: str, text: str | None = None, **more: str) -> Done:
    """Run Python in a process of its own."""
    done = programs.run(
        [sys.executable, *arguments],
        env=environment(**more),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def die(*arguments: str, text: str | None = None, **more: str) -> None:
    """Run Python, which dies in the second step."""
    done = python(*arguments, text=text, DIE="1", **more)
    assert done.code == 9, done


def copied(original: Path, monkeypatch: pytest.MonkeyPatch, *, under: str = ".") -> Path:
    """A copy of the project with code of its own; the working directory is in it."""
    folder = original.with_name("copy")
    shutil.copytree(original, folder)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {".py", ""}:
            path.write_text(path.read_text("utf-8").replace("the original", "the copy"), "utf-8")
    monkeypatch.chdir(folder / under)
    return folder


def next_line(cli: Cli) -> str:
    """What ``show`` says is to be done next."""
    lines = cli("show", "r").out.splitlines()
    return next(line[10:] for line in lines if line.startswith("next "))


# ---------------------------------------------------------------- copied, moved


@pytest.mark.parametrize("script", ["flow.py", "jobs/flow.py", "bin/flow"])
def test_a_copied_script_is_resumed_by_the_copy(
    script: str, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(original / script, FLOW + MAIN)
    die(script)
    copy = copied(original, monkeypatch)
    done = child("resume", "r", "-q")

    assert (done.code, done.out) == (0, '"the copy"\n')
    assert done.err == f"  by {copy / script}, not by {original / script} as before\n"


def test_a_moved_script_is_found_in_its_new_place(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(original / "flow.py", FLOW + MAIN)
    die("flow.py")
    copied(original, monkeypatch)
    shutil.rmtree(original)

    assert child("resume", "r").out == '"the copy"\n'


def test_nothing_is_said_where_nothing_was_moved(original: Path) -> None:
    write(original / "flow.py", FLOW + MAIN)
    die("flow.py")

    done = child("resume", "r", "-q")
    assert (done.out, done.err) == ('"the original"\n', "")


def test_the_code_of_another_directory_is_named(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none in this one, and a copy's must not be taken for it."""
    write(original / "flow.py", FLOW + MAIN)
    (original / "data").mkdir()
    monkeypatch.chdir("data")
    die("../flow.py")
    copied(original, monkeypatch, under="data")

    done = child("resume", "r", "-q", "--trust")
    assert (done.out, done.err) == ('"the original"\n', f"  by {original / 'flow.py'}\n")


@pytest.mark.parametrize("source", [".", "src"])
def test_a_copied_package_is_resumed_by_the_copy(
    source: str, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the original is on the path, as by an editable installation."""
    write(original / source / "shop/__init__.py", "")
    write(original / source / "shop/orders.py", FLOW + MAIN)
    path = environment()["PYTHONPATH"] + f":{original / source}"
    die("-m", "shop.orders", PYTHONPATH=path)
    copy = copied(original, monkeypatch)
    done = child("resume", "r", "-q", PYTHONPATH=path)

    place = Path(source, "shop/orders.py")
    assert (done.code, done.out) == (0, '"the copy"\n')
    assert done.err == f"  by {copy / place}, not by {original / place} as before\n"


def test_a_run_of_the_command_line_is_resumed_by_the_copy(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(original / "flow.py", FLOW)
    assert child("run", "flow.py:flow", "--id", "r", DIE="1").code == 9
    copied(original, monkeypatch)

    assert child("resume", "r").out == '"the copy"\n'


def test_a_module_beside_the_script_is_found_again(cli: Cli, original: Path) -> None:
    write(original / "src/jobs.py", FLOW)
    write(original / "src/main.py", f"from jobs import flow\n\n{CALL}")
    die("src/main.py")

    assert next_line(cli) == "tapps-otel resume r"
    assert child("resume", "r").out == '"the original"\n'


def test_a_program_that_was_copied_resumes_by_its_own_code(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = '\n\nif __name__ == "__main__":\n    import tapps_otel\n    if "resume" in '
    main += 'os.environ:\n        print(tapps_otel.resume("r"))\n    else:\n        ' + CALL
    write(original / "flow.py", FLOW + main)
    die("flow.py")
    copy = copied(original, monkeypatch)
    done = python("flow.py", resume="1")

    assert done.out == "the copy\n"
    assert f"run 'r' is resumed by {copy / 'flow.py'}, not by {original / 'flow.py'}" in done.err


# ---------------------------------------------------------------- told where it is


def test_the_workflow_can_be_named(original: Path) -> None:
    write(original / "flow.py", FLOW + MAIN)
    die("flow.py")
    (original / "src").mkdir()
    (original / "flow.py").rename("src/flow.py")

    refused = child("resume", "r")
    assert refused.code == 5
    assert "`tapps-otel resume r FILE.py:FUNCTION`" in refused.err

    failed = child("resume", "r", "src/flow.py:flow", FAIL="1")
    assert failed.code == 1
    assert "first" not in failed.err  # it was not run again
    assert failed.err.endswith(f"  next: {Path(sys.executable).name} -m tapps_otel resume r\n")
    assert child("resume", "r").out == '"the original"\n'  # where it was found is in the log


HANDLED = """

class Refused(Exception):
    pass


@step
def refuse() -> str:
    raise Refused("no")


@workflow
def handle() -> str:
    try:
        return refuse()
    except Refused as error:
        return f"{error} by {second()}"
"""


@pytest.mark.parametrize(
    "begin", [["-m", "tapps_otel", "run", "shop/flow.py:handle", "--id", "r"], ["shop/flow.py"]]
)
def test_a_renamed_module_keeps_its_steps_and_classes(begin: list[str], original: Path) -> None:
    call = "\n\nif __name__ == '__main__':\n    handle.options(workflow_id='r')()\n"
    write(original / "shop/flow.py", FLOW + HANDLED + call)
    die(*begin)
    (original / "shop/flow.py").rename("nightly.py")

    assert child("resume", "r", "nightly.py:handle", FAIL="1").code == 1
    assert child("resume", "r").out == '"no by the original"\n'
    assert len(history("r").by_id["refuse"].attempts) == 1


def test_code_of_a_notebook_can_be_put_into_a_file(original: Path) -> None:
    die("-m", "IPython", "--quick", "--no-banner", "-c", FLOW + CALL)
    write(original / "flow.py", FLOW)

    assert child("resume", "r", "flow.py:flow").out == '"the original"\n'
    assert len(history("r").by_id["first"].attempts) == 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("flow.py:gone", "run 'a': cannot import 'gone' from "),
        ("gone.py:failing", "No such file"),
        ("gone:failing", "No module named 'gone'"),
        ("flow.py", "'flow.py' is not MODULE:FUNCTION"),
        ("flow.py:os", "is a module, not a function with @workflow"),
        ("flow.py:small", "run 'a' belongs to workflow 'failing', not to workflow 'small'"),
    ],
)
def test_a_wrong_name_is_refused(cli: Cli, target: str, said: str) -> None:
    cli("run", "flow.py:failing", "--id", "a")
    size = (LOGS / "a.jsonl").stat().st_size
    done = cli("resume", "a", target)

    assert done.code == 5
    assert said in done.err
    assert (LOGS / "a.jsonl").stat().st_size == size


# ---------------------------------------------------------------- code that no import path leads to

AGAIN = "run the code that started it again, with workflow_id='r'"
LOCAL = f"def main() -> None:\n{indent(FLOW + CALL, '    ')}\n\nmain()\n"
DECORATOR = """
def loud(fn):
    @functools.wraps(fn)
    def call():
        return fn()

    return call


@loud
"""


@pytest.mark.parametrize(
    ("arguments", "text"),
    sample(
        [
            pytest.param(["-c", FLOW + CALL], None, id="command"),
            pytest.param(["-"], FLOW + CALL, id="standard input"),
            pytest.param(
                ["-m", "IPython", "--quick", "--no-banner", "-c", FLOW + CALL], None, id="IPython"
            ),
            pytest.param(["local.py"], None, id="local function"),
            pytest.param(["opened.py"], None, id="Run.open"),
        ],
        2,
    ),
)
def test_a_run_that_only_its_own_code_can_resume(
    arguments: list[str], text: str | None, cli: Cli, original: Path
) -> None:
    write(original / "local.py", LOCAL)
    opened = FLOW.replace("@workflow\n", "")
    opened += 'from tapps_otel import Run\n\nwith Run.open("flow", workflow_id="r"):\n    flow()\n'
    write(original / "opened.py", opened)
    die(*arguments, text=text)

    assert next_line(cli) == AGAIN
    refused = cli("resume", "r")
    assert refused.code == 5
    assert f"To resume it, {AGAIN}" in refused.err
    assert "`tapps-otel resume r FILE.py:FUNCTION`" in refused.err

    failed = python(*arguments, text=text, FAIL="1")
    assert f"to resume this run: {AGAIN}" in failed.out + failed.err  # IPython prints to the first
    assert python(*arguments, text=text).code == 0
    assert [one.status for one in history("r").executions][-1] == "completed"
    assert len(history("r").by_id["first"].attempts) == 1


def test_a_workflow_of_another_name_in_its_module_is_found(original: Path) -> None:
    source = FLOW.replace("@workflow\ndef flow(", "def _flow(") + "\n\nflow = workflow(_flow)\n"
    write(original / "flow.py", source + MAIN)
    die("flow.py")

    assert child("resume", "r").out == '"the original"\n'


def test_a_workflow_below_a_decorator_is_found(original: Path) -> None:
    source = FLOW.replace("import os", "import functools\nimport os")
    write(original / "flow.py", source.replace("@workflow\n", f"{DECORATOR}@workflow\n"))
    write(original / "main.py", f"from flow import flow\n\nflow.__wrapped__.{CALL[5:]}")
    die("main.py")

    assert child("resume", "r").out == '"the original"\n'


def test_a_workflow_that_a_decorator_hides_has_no_command(cli: Cli, original: Path) -> None:
    source = FLOW.replace("@workflow\n", "@lambda fn: found.append(fn)\n@workflow\n")
    source = source.replace("import os", "import os\n\nfound = []")
    write(original / "flow.py", f"{source}\n\nfound[0].options(workflow_id='r')()\n")
    die("flow.py")

    assert next_line(cli) == AGAIN


def test_a_resolved_step_is_followed_by_what_can_work(cli: Cli, original: Path) -> None:
    source = FLOW.replace("@step\ndef second", '@step(on_interrupted="fail")\ndef second')
    die("-c", source + CALL)
    done = cli("resolve", "r", "second", "--rerun")

    assert done.out.endswith(f"next: {AGAIN}\n")


def test_other_inputs_are_refused_with_what_can_work(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Run.open("made", workflow_id="r", inputs={"a": 1}):
        raise RuntimeError("no")
    with pytest.raises(Exception, match=f"own inputs, {AGAIN}"):
        Run.open("made", workflow_id="r", inputs={"a": 2})
    with pytest.raises(Exception, match=r"opened by Run\.open"):
        resume("r")
