"""``Run``: for the authors of executors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashes import Effects, die_at, in_child, killed
from tapps_otel import Attempt, Run, current_run, current_step, history, step
from tapps_otel.errors import RunConflictError

Labels = Callable[..., list[str]]


def test_a_run_is_opened_and_its_steps_called(did: Effects, labels: Labels) -> None:
    def compile_all(source: str) -> str:
        did("compile")
        assert current_run().workflow_id == "r"
        return source.upper()

    with Run.open("build", workflow_id="r") as run:
        assert run.workflow_id == "r"
        assert run.call("compile", compile_all, "main", agent="cc") == "MAIN"

    assert labels() == [
        "workflow_start",
        "step_start compile",
        "step_finish compile",
        "workflow_end",
    ]
    assert history("r").status == "completed"
    assert history("r").name == "build"


def test_a_killed_run_is_resumed(did: Effects) -> None:
    def work(number: int) -> int:
        did(f"work {number}")
        die_at(f"work {number}")
        return number * 2

    def main() -> list[int]:
        with Run.open("build", workflow_id="r", inputs={"numbers": 3}) as run:
            return [run.call("work", work, number) for number in range(3)]

    killed(main, at="work 2")

    assert main() == [0, 2, 4]
    assert did.all == ["work 0", "work 1", "work 2", "work 2"]


def test_an_exception_ends_the_run_as_failed(did: Effects) -> None:
    def main() -> None:
        with Run.open("build", workflow_id="r"):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        main()
    again = "to resume this run: run the code that started it again, with workflow_id='r'"
    assert again in caught.value.__notes__
    assert history("r").status == "failed"


async def test_a_run_that_is_opened_in_async_code_ends_as_its_block_does(log: Any) -> None:
    async with Run.open("build", workflow_id="r") as run:
        assert current_run() is run
    [end] = log("workflow_end")
    assert (end["status"], end["result"]) == ("completed", None)
    with pytest.raises(ValueError, match="mine") as caught:
        async with Run.open("build", workflow_id="s"):
            raise ValueError("mine")

    assert any("to resume this run" in note for note in caught.value.__notes__)
    assert history("s").status == "failed"
    with pytest.raises(LookupError):
        current_run()


def test_other_inputs_or_another_name_are_refused() -> None:
    with Run.open("build", workflow_id="r", inputs={"a": 1}):
        pass
    with pytest.raises(RunConflictError):
        Run.open("build", workflow_id="r", inputs={"a": 2}).__enter__()
    with pytest.raises(RunConflictError):
        Run.open("other", workflow_id="r", inputs={"a": 1}).__enter__()


def test_a_completed_run_returns_the_results_of_its_steps(did: Effects, labels: Labels) -> None:
    def main() -> int:
        with Run.open("build", workflow_id="r") as run:
            return int(run.call("work", did, "work"))

    assert main() == 1
    before = labels()
    assert main() == 1
    assert did.all == ["work"]
    assert labels() == before


async def test_async_functions_are_called(did: Effects) -> None:
    async def work(number: int) -> int:
        did("work")
        return number

    for _ in range(2):
        with Run.open("build", workflow_id="r") as run:
            assert await run.acall("work", work, 7) == 7
    assert did.all == ["work"]


def test_steps_are_begun_and_ended_by_hand(labels: Labels) -> None:
    with Run.open("build", workflow_id="r") as run:
        with run.begin("one", inputs={"a": 1}, agent="cc") as attempt:
            assert not attempt.done
            assert current_step() is attempt
            assert attempt.idempotency_key
            attempt.finish({"size": 3})
        attempt = run.begin("two")
        attempt.fail(ValueError("no"))
        attempt = run.begin("three")
        attempt.skip("not today")

    assert labels() == [
        "workflow_start",
        "step_start one",
        "step_finish one",
        "step_start two",
        "step_fail two",
        "step_start three",
        "step_skip three",
        "workflow_end",
    ]
    assert history("r").status == "completed"


def test_a_step_begun_by_hand_is_done_after_resume(did: Effects) -> None:
    def main() -> object:
        with Run.open("build", workflow_id="r") as run:
            with run.begin("one", inputs={"a": 1}) as attempt:
                if not attempt.done:
                    did("one")
                    attempt.finish({"size": 3})
                got = attempt.result
            die_at("end")
            return got

    killed(main, at="end")

    assert main() == {"size": 3}
    assert did.all == ["one"]


def test_a_step_begun_by_hand_is_told_from_others_by_its_inputs(did: Effects) -> None:
    def main(*numbers: int) -> None:
        with Run.open("build", workflow_id="r") as run:
            for number in numbers:
                with run.begin("one", inputs=number) as attempt:
                    if not attempt.done:
                        did(str(number))
                        attempt.finish(number)
                    assert attempt.result == number
            die_at("end")

    killed(lambda: main(1, 2), at="end")
    main(2, 1)

    assert did.all == ["1", "2"]


def test_a_called_step_leaves_the_enclosing_one_current() -> None:
    with Run.open("build", workflow_id="r") as run:
        with run.begin("outer") as outer:
            run.call("inner", lambda: None)
            assert current_step() is outer
        assert current_run() is run


def test_an_exception_inside_a_begun_step_is_its_failure() -> None:
    with Run.open("build", workflow_id="r") as run:
        with pytest.raises(ValueError, match="inside"), run.begin("one"):
            raise ValueError("inside")
        with run.begin("two"):
            pass
    assert [one.status for one in history("r").steps] == ["failed", "completed"]


def test_steps_inside_a_begun_step_are_its_own(did: Effects) -> None:
    @step
    def inner() -> None:
        did("inner")

    with Run.open("build", workflow_id="r") as run, run.begin("outer"):
        inner()
        run.call("called", did, "called")

    assert [one.step_id for one in history("r").steps] == ["outer", "outer/inner", "outer/called"]


def test_artifacts_are_summaries(tmp_path: Path) -> None:
    from tapps_otel import events

    path = tmp_path / "out.txt"
    path.write_text("hello")
    with Run.open("build", workflow_id="r") as run:
        run.begin("one").finish(artifacts=[{"name": "out", "path": str(path), "bytes": 5}])

    (finish,) = [one for one in events("r") if one.event_type == "step_finish"]
    assert finish.artifacts == [{"name": "out", "path": str(path), "bytes": 5}]


def test_a_step_left_open_is_ended_with_the_run() -> None:
    with Run.open("build", workflow_id="r") as run:
        run.begin("open")
    assert history("r").steps[0].status != "running"


def test_a_run_in_a_child_is_a_run_as_anywhere() -> None:
    def main() -> str:
        with Run.open("build", workflow_id="r") as run:
            return str(run.call("work", str.upper, "a"))

    assert in_child(main).value == "A"
    assert main() == "A"


@pytest.mark.slow
def test_large_inputs_and_many_artifacts_fit_into_the_log(tmp_path: Path) -> None:
    """Captured inputs go into a blob; artifacts beyond what a line holds are counted."""
    from tapps_otel import configure, events, step, verify, workflow

    configure(capture_inputs=True)

    @step
    def work(text: str) -> int:
        return len(text)

    @workflow
    def flow() -> int:
        return work("x" * 3_000_000)

    assert flow.options(workflow_id="r")() == 3_000_000
    (start,) = [one for one in events("r") if one.event_type == "step_start"]
    assert start.inputs_blob
    verify("r").raise_if_bad()

    with Run.open("build", workflow_id="many") as run:
        made = [{"name": f"{number}.txt", "path": "x" * 200} for number in range(5000)]
        run.begin("one").finish(artifacts=made)
    (finish,) = [one for one in events("many") if one.event_type == "step_finish"]
    *listed, rest = finish.artifacts or []
    assert len(listed) + rest["omitted"] == 5000
    assert run.log_failure is None


def public_names(of: type) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_only_names_for_users_are_public() -> None:
    assert public_names(Run) == {
        "acall",
        "annotate",
        "begin",
        "call",
        "close",
        "done",
        "execution",
        "log_dir",
        "log_failure",
        "name",
        "open",
        "result",
        "trace_id",
        "workflow_id",
    }
    assert public_names(Attempt) == {
        "artifact",
        "current",
        "done",
        "fail",
        "finish",
        "idempotency_key",
        "number",
        "result",
        "skip",
        "step_id",
    }
