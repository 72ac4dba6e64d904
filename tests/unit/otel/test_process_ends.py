"""The ends of processes: whichever way one leaves, its spans have been sent."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from capabilities import need
from effort import sample
from otlp_collector import Sink, serving

pytestmark = pytest.mark.slow

PROGRAM = """
import atexit
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tapps_otel import step, workflow

@step
def work(number):
    return number

@workflow
def flow(number):
    return work(number)

def run(number):
    flow.options(workflow_id=f"child-{number}")(number)

def process(context):
    child = context.Process(target=run, args=(1,))
    child.start()
    child.join()

def killed_pool(context):
    with context.Pool(1) as pool:
        pool.map(run, [1])

def closed_pool(context):
    pool = context.Pool(1)
    pool.map(run, [1])
    pool.close()
    pool.join()

def executor(context):
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        list(pool.map(run, [1]))

def forked(context, leave=sys.exit):
    pid = os.fork()
    if pid == 0:
        run(1)
        leave(0)
    os.waitpid(pid, 0)

def cut_off(context):
    forked(context, os._exit)

def exit_handler(context):
    atexit.register(run, 1)

if __name__ == "__main__":
    what, method, set_up_before = sys.argv[1:]
    if set_up_before == "True":
        flow.options(workflow_id="parent")(0)
    globals()[what](multiprocessing.get_context(method))
"""
# Only the child imports the package.
LATE = """
import multiprocessing
import sys

def run():
    import program
    program.run(1)

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
"""


def names(what: str, *, method: str = "fork", set_up_before: bool) -> list[str]:
    """Run the program, and return the runs whose spans the collector has got."""
    Path("program.py").write_text(PROGRAM)  # a file, because children that are started import it
    return came("program.py", what, method, str(set_up_before))


def came(*command: str) -> list[str]:
    need("fork")
    with serving(Sink()) as sink:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            env=os.environ
            | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.server_address[1]}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_BSP_SCHEDULE_DELAY": "600000",
                "TAPPS_OTEL_ANNOUNCE": "off",
                "TAPPS_OTEL_SHUTDOWN_TIMEOUT": "30",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(str(span.attributes["tapps.workflow.id"]) for span in sink.spans)


@pytest.mark.parametrize(
    ("what", "set_up_before"),
    sample(
        product(
            ["process", "killed_pool", "closed_pool", "executor", "forked", "cut_off"],
            [True, False],
        ),
        6,
    ),
)
def test_all_spans_of_a_forked_child_are_sent(what: str, set_up_before: bool) -> None:
    parents = ["parent"] * 2 if set_up_before else []

    assert names(what, set_up_before=set_up_before) == ["child-1"] * 2 + parents


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_all_spans_of_a_started_child_are_sent(method: str) -> None:
    assert names("process", method=method, set_up_before=False) == ["child-1"] * 2


def test_all_spans_of_a_child_that_alone_imports_the_package_are_sent() -> None:
    Path("program.py").write_text(PROGRAM)
    Path("late.py").write_text(LATE)

    assert came("late.py") == ["child-1"] * 2


def test_all_spans_of_a_run_in_an_exit_handler_are_sent() -> None:
    assert names("exit_handler", set_up_before=True) == ["child-1"] * 2 + ["parent"] * 2
