"""Workflows in tasks of real Celery workers that are killed: the task comes again, and resumes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from commands import LOGS, environment
from crashes import Effects
from independent_checker import check
from ports import free_ports
from tapps_otel import history

pytest.importorskip("celery", reason="needs celery: pip install celery")

pytestmark = pytest.mark.slow
SHOP = """
import os, signal
from pathlib import Path
from celery import Celery
from tapps_otel import errors, step, workflow

app = Celery("shop", broker=os.environ["BROKER"], backend=f"file://{Path.cwd()}/results")
if os.environ["BROKER"].startswith("redis"):
    # By default, a task that was not acknowledged is looked for every 100 seconds.
    app.conf.broker_transport_options = {
        "visibility_timeout": 2, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 2,
    }
else:
    app.conf.broker_transport_options = {
        "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "queue/control",
    }
app.conf.worker_lost_wait = 0.1


def note(word):
    with open("effects", "a") as file:
        file.write(f"{word}\\n")


@step
def charge(order: str) -> str:
    note("charged")
    return f"receipt for {order}"


@step
def ship(order: str) -> str:
    note("shipping")
    if not Path("killed").exists():
        Path("killed").touch()
        if os.environ["DIES"] == "worker":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{order} is on its way"


@workflow
def fulfil(order: str) -> list[str]:
    return [charge(order), ship(order)]


@app.task(
    bind=True, acks_late=True, reject_on_worker_lost=True,
    autoretry_for=(errors.RunBusyError,), default_retry_delay=1, max_retries=None,
)
def process(self, order):
    return fulfil.options(workflow_id=self.request.id)(order)
"""
SEND = "from shop import process; process.apply_async(['a book'], task_id='order-7')"
AWAIT = "from shop import process; print(process.AsyncResult('order-7').get(timeout=90))"


@contextmanager
def worker(env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with one process in its pool, in a process group of its own."""
    command = [sys.executable, "-m", "celery", "--app", "shop", "worker", "--concurrency", "1"]
    with Path("worker.log").open("ab") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def redis() -> Iterator[str]:
    """A Redis of this test's own."""
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def run(program: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + Path("worker.log").read_text()
    return done.stdout


def assert_resumed() -> None:
    """The run of the task was resumed by another process, and repeated nothing."""
    found = history("order-7")
    events = check(LOGS / "order-7.jsonl")

    assert Effects(Path("effects")).all == ["charged", "shipping", "shipping"]
    assert [one.status for one in found.executions] == ["interrupted", "completed"]
    assert len({one.process["pid"] for one in found.executions}) == 2
    assert [(one.name, [a.status for a in one.attempts]) for one in found.steps] == [
        ("charge", ["completed"]),
        ("ship", ["interrupted", "completed"]),
    ]
    assert {one["trace_id"] for one in events if "trace_id" in one} == {found.trace_id}


@pytest.fixture
def shop() -> None:
    Path("shop.py").write_text(SHOP, "utf-8")
    for folder in ("queue", "results"):
        Path(folder).mkdir()


@pytest.mark.usefixtures("shop")
def test_a_task_whose_process_is_killed_resumes_in_the_next_one() -> None:
    env = environment(BROKER="filesystem://", DIES="process")
    run(SEND, env)
    with worker(env):
        said = run(AWAIT, env)

    assert said == "['receipt for a book', 'a book is on its way']\n"
    assert_resumed()


@pytest.mark.usefixtures("shop")
@pytest.mark.skipif(
    find_spec("redis") is None or shutil.which("redis-server") is None,
    reason="needs Redis: apt-get install redis-server, pip install redis",
)
def test_a_task_whose_whole_worker_is_killed_resumes_in_another_worker() -> None:
    with ExitStack() as stack:
        env = environment(BROKER=stack.enter_context(redis()), DIES="worker")
        run(SEND, env)
        doomed = stack.enter_context(worker(env))
        assert doomed.wait(60) == -signal.SIGKILL
        assert history("order-7").status == "interrupted"
        stack.enter_context(worker(env))
        said = run(AWAIT, env)

    assert said == "['receipt for a book', 'a book is on its way']\n"
    assert_resumed()
