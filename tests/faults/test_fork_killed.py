"""`fork` that is killed between any two file operations: the new run is whole, or is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from crashes import CRASHED, Deadly, Effects, in_child
from tapps_otel import fork, list_runs, step, verify, workflow
from tapps_otel.log import files

LOGS = Path("logs")


@pytest.fixture
def effects(tmp_path: Path) -> Effects:
    return Effects(tmp_path / "effects")


def test_a_killed_fork_makes_a_whole_run_or_none_and_can_be_repeated(
    effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPPS_OTEL_LOG_DIR", str(LOGS))

    @step
    def large() -> str:
        effects("large")
        return "x" * 70_000

    @step
    def count(text: str) -> int:
        return len(text)

    @workflow
    def flow() -> int:
        return count(large())

    assert flow.options(workflow_id="r")() == 70_000
    before = (LOGS / "r.jsonl").read_bytes()
    effects.forget()
    nth, code, made = 0, CRASHED, 0
    while code == CRASHED:
        nth += 1

        def doomed(nth: int = nth) -> None:
            with files.use(Deadly(nth)):
                fork("r", from_step="count", new_workflow_id="f")

        code = in_child(doomed).code
        if code == CRASHED and not (LOGS / "f.jsonl").exists():
            assert [run.workflow_id for run in list_runs()] == ["r"]
            fork("r", from_step="count", new_workflow_id="f")
        else:
            made += 1
        assert verify("f").ok
        assert flow.resume("f") == 70_000
        assert (LOGS / "r.jsonl").read_bytes() == before
        assert effects.all == []
        for path in LOGS.rglob("f.*"):
            if path.is_file():
                path.unlink()
    assert code == 0
    assert made >= 1
    assert nth > 10
