"""Runs of other executors, as authors of adapters record them."""

from __future__ import annotations

import asyncio
import os
import sys
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import programs
from commands import environment
from tapps_otel import ExternalRun, current_step, history, verify
from tapps_otel.errors import RunBusyError
from waiting import until

Log = Callable[..., list[dict[str, Any]]]
Labels = Callable[..., list[str]]


def test_blocks_end_runs_and_steps(log: Log) -> None:
    with ExternalRun.start(
        "nightly", executor="engine", run_id="r", about={"root": "/p"}, inputs={"day": 1}
    ) as run:
        with run.begin_step("load", agent="reader", attributes={"rows": 3}) as outer:
            assert current_step().step_id == "load"
            with run.begin_step("parse", name="parsing"):
                pass
        with pytest.raises(ValueError, match="no"), run.begin_step("bad"):
            raise ValueError("no")

    assert (outer.step_id, outer.number) == ("load", 1)
    assert (run.workflow_id, run.execution, run.log_failure) == ("r", 1, None)
    start, load, parse, *_, end = log()
    assert start["workflow"] == {"name": "nightly", "executor": "engine", "root": "/p"}
    assert (load["attributes"], parse["step_id"], parse["step"]) == (
        {"rows": 3}, "load/parse", "parsing",
    )  # fmt: skip
    assert {one.step_id: one.status for one in history("r").steps} == {
        "load": "completed", "load/parse": "completed", "bad": "failed",
    }  # fmt: skip
    assert end["status"] == "completed"
    verify("r").raise_if_bad()


def test_an_exception_ends_the_run(log: Log) -> None:
    with (
        pytest.raises(asyncio.CancelledError),
        ExternalRun.start("nightly", executor="engine", run_id="r"),
    ):
        raise asyncio.CancelledError

    assert log()[-1]["status"] == "cancelled"


def test_a_run_pauses_with_a_question_and_is_resumed(log: Log, labels: Labels) -> None:
    run = ExternalRun.start("nightly", executor="engine", run_id="r")
    attempt = run.begin_step("ask")
    attempt.end("paused", question="publish?")
    run.end("paused", question="publish?")
    assert history("r").question == "publish?"

    run = ExternalRun.resume("nightly", executor="engine", run_id="r")
    run.begin_step("ask").end(result="yes", artifacts=[], attributes={"by": "me"})
    run.skip_step("mail", "nobody to tell")
    run.annotate("note", {"a": 1})
    run.end()
    run.end("failed")

    assert (run.execution, history("r").question, history("r").status) == (2, None, "completed")
    assert labels()[-5:] == [
        "step_start ask", "step_finish ask", "step_skip mail", "annotation", "workflow_end",
    ]  # fmt: skip
    assert log("step_finish")[0]["attributes"] == {"by": "me"}


def test_steps_without_an_id_are_new_ones_and_have_a_parent(labels: Labels) -> None:
    run = ExternalRun.start("nightly", executor="engine", run_id="r")
    outer = run.begin_step("outer")
    for _ in range(2):
        run.begin_step(name="tool", parent=outer).end()
    run.end()
    outer.end("blocked", error="no key")

    assert labels()[2:] == [
        "step_start outer/tool", "step_finish outer/tool", "step_start outer/tool#2",
        "step_finish outer/tool#2", "workflow_end", "step_fail outer",
    ]  # fmt: skip
    assert history("r").by_id["outer"].status == "failed"


def test_mistakes_are_refused(tmp_path: Path) -> None:
    run = ExternalRun.start("nightly", executor="engine", log_dir=tmp_path / "other")
    with pytest.raises(TypeError, match="needs a step_id or a name"):
        run.begin_step()
    with pytest.raises(TypeError):
        run.begin_step("a", attributes={"it": object()})
    with pytest.raises(RunBusyError):
        ExternalRun.resume(
            "nightly", executor="engine", run_id=run.workflow_id, log_dir=tmp_path / "other"
        )
    run.close()
    assert history(run.workflow_id, log_dir=tmp_path / "other").status == "interrupted"
    assert str(run).startswith("<ExternalRun 'nightly-")


def test_large_artifacts_are_hashed_in_little_memory(log: Log) -> None:
    Path("small").write_bytes(b"x")
    Path("large").touch()
    os.truncate("large", 64 << 20)
    tracemalloc.start()
    try:
        with ExternalRun.start("nightly", executor="engine", run_id="r") as run:
            run.begin_step("load").end(artifacts=["small", "large"])
        until(lambda: "sha256" in history("r").by_id["load"].last.artifacts[1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 16 << 20
    (finish,) = (one for one in log() if one["event_type"] == "step_finish")
    assert ["sha256" in one for one in finish["artifacts"]] == [True, False]
    assert [one["sha256"] for one in history("r").by_id["load"].last.artifacts] == [
        sha256(b"x").hexdigest(), sha256(bytes(64 << 20)).hexdigest(),
    ]  # fmt: skip
    assert verify("r").ok


EXITS = """
import os, threading
from tapps_otel import ExternalRun
from tapps_otel.log import files

class NeverRead(files.Files):
    def open_read(self, path):
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return super().open_read(path)

open("large", "w").close()
os.truncate("large", 64 << 20)
with files.use(NeverRead()):
    with ExternalRun.start("nightly", executor="engine", run_id="r") as run:
        run.begin_step("load").end(artifacts=["large"])
    print("done", flush=True)
"""


def test_a_process_exits_without_the_digest_of_a_large_artifact() -> None:
    done = programs.run(
        [sys.executable, "-c", EXITS],
        env=environment(TAPPS_OTEL_LOG_DIR="logs"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    (artifact,) = history("r").by_id["load"].last.artifacts
    assert (artifact["bytes"], "sha256" in artifact) == (64 << 20, False)
    assert history("r").status == "completed"
