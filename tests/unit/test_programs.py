"""Programs that tests begin in forks: they do what they do in an interpreter of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import programs
from commands import environment

SAYS = """
import atexit, multiprocessing.process, os, sys, threading, time, __main__
atexit.register(print, "last")
def after():
    threading.main_thread().join()
    print("a thread")
threading.Thread(target=after).start()
print(sys.argv, sys.path[0], os.getcwd(), __name__, sys.modules["__main__"] is __main__)
print(globals().get("__file__"), multiprocessing.process.ORIGINAL_DIR, time.strftime("%Z"))
print(sorted(name for name in vars(__main__) if name.startswith("__")))
print(sorted(os.environ.items()))
print(sys.stdin.read(), sys.stdout.isatty(), [os.path.exists(f"/dev/fd/{n}") for n in range(3, 50)])
print(os.getsid(0) == os.getpid())
"""
ENDS = {
    "a code": "import sys; sys.exit(7)",
    "a message": "raise SystemExit('a message')",
    "os._exit": "import os; print('out'); os._exit(9)",
    "Ctrl-C": "raise KeyboardInterrupt",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "no module": "import tapps_otel, none_such_module",
    "a warning": "import warnings; warnings.warn('of the program')",
}


def both(*arguments: str, **options: Any) -> list[tuple[int, str, str]]:
    """Run Python in a fork and in an interpreter of its own."""
    command = [sys.executable, *arguments]
    given: Any = {"env": environment(TZ="Asia/Tokyo", GIVEN="é"), "text": True, **options}
    forked = programs.run(command, capture_output=True, **given)
    alone = subprocess.run(command, capture_output=True, check=False, **given)
    return [(done.returncode, done.stdout, done.stderr) for done in (forked, alone)]


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize(
    "arguments", [["sub/app.py", "an argument"], ["-c", SAYS, "-x"], ["-m", "sub.app", "a"]]
)
def test_a_program_finds_what_it_finds_alone(arguments: list[str], session: bool) -> None:
    Path("sub").mkdir()
    Path("sub/app.py").write_text(SAYS, "utf-8")
    forked, alone = both(*arguments, input="given", start_new_session=session)

    assert forked[1].splitlines() == alone[1].splitlines()
    assert (forked[0], forked[2]) == (0, "")
    assert forked[1].endswith(f"{session}\na thread\nlast\n")


@pytest.mark.parametrize("text", ENDS.values(), ids=ENDS)
def test_a_program_ends_as_it_does_alone(text: str) -> None:
    forked, alone = both("-W", "ignore", "-c", text)

    assert forked[:2] == alone[:2]
    assert forked[2].splitlines()[-1:] == alone[2].splitlines()[-1:]


def test_it_is_a_process_that_can_be_killed_and_is_gone() -> None:
    command = [sys.executable, "-c", "print('begun'); input()"]
    with programs.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        os.kill(process.pid, signal.SIGKILL)

        assert process.wait(timeout=60) == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LC_ALL", "PYTHONIOENCODING"])
def test_what_an_interpreter_reads_when_it_begins_holds(name: str) -> None:
    values = {"PYTHONHASHSEED": "3", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}
    text = "import sys; print(hash('a'), sys.stdout.encoding)"
    forked, alone = both("-c", text, env=environment(**{"PYTHONHASHSEED": "1", name: values[name]}))

    assert forked == alone


def test_what_a_library_reads_when_it_is_imported_holds() -> None:
    text = "import opentelemetry.propagate as p; print(p.get_global_textmap()._propagators)"
    env = environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_PROPAGATORS="none")

    assert both("-c", text, env=env)[0] == (0, "[]\n", "")
