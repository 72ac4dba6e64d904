"""Ctrl-C and SIGTERM while a workflow runs."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

import programs
from commands import Done, command, environment, wait_for
from tapps_otel import history

pytestmark = pytest.mark.slow  # most of them start processes


def signalled(workflow: str, number: signal.Signals) -> Done:
    # Who runs the tests in the background of a shell has them ignore Ctrl-C; a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with programs.Popen(
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


def test_ctrl_c_is_raised_in_the_awaited_step() -> None:
    signalled("waiting", signal.SIGINT)

    error = history("a").by_id["wait"].last.error
    assert error is not None
    assert error["type"] == "KeyboardInterrupt"
