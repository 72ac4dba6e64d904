"""An attempt of a step starts once and ends once: a log that tells otherwise is damaged."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logs import ID, event, start, write, writing
from tapps_otel import configure, step, verify, workflow
from tapps_otel.errors import LogDamagedError
from tapps_otel.log import attempts
from tapps_otel.log.event import Event
from tapps_otel.log.reader import check, read
from tapps_otel.run.resolving import repair

ENDS = ("step_finish", "step_fail", "step_skip")
STEPS, ATTEMPTS = st.integers(1, 3), st.integers(1, 3)


def of_step(kind: str, number: int, attempt: int, **fields: Any) -> Event:
    if kind == "step_skip":
        fields = {"duration_ns": 1} | fields
    return event(kind, step_id=f"s#{number}", attempt=attempt, **fields)


def skipped_by_executor(number: int, attempt: int) -> Event:
    """As an executor skips what has failed, or what it never started: without a duration."""
    return event("step_skip", step_id=f"s#{number}", attempt=attempt, reason="no need")


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events of steps, in any order in which each attempt starts and ends once at most."""
    events, known = [start()], set[tuple[int, int, str]]()
    for _ in range(draw(st.integers(1, 20))):
        number, attempt = draw(STEPS), draw(ATTEMPTS)
        kind = draw(st.sampled_from(["step_start", "end", "by executor", "annotation"]))
        if kind == "by executor":
            events.append(skipped_by_executor(number, attempt))
        elif kind == "annotation":
            events.append(event("annotation", step_id=f"s#{number}", name="note"))
        elif (number, attempt, kind) not in known and (number, attempt, "end") not in known:
            known.add((number, attempt, kind))
            events.append(
                of_step(draw(st.sampled_from(ENDS)) if kind == "end" else kind, number, attempt)
            )
    return events


def written(folder: str, events: list[Event]) -> Path:
    path = Path(folder) / f"{ID}.jsonl"
    for one in events:
        one.seq = 0
    write(path, events, durability="os")
    return path


@given(histories())
def test_what_recorders_write_is_no_damage(events: list[Event]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, events)
        assert check(path, ID).ok
        assert len(list(read(path, ID))) == len(events)
        with writing(path):
            pass


@given(histories(), st.data())
def test_a_second_end_is_damage_at_its_place(events: list[Event], data: st.DataObject) -> None:
    number, attempt = data.draw(STEPS), data.draw(ATTEMPTS)
    mine = [
        place
        for place, one in enumerate(events, 1)
        if one.event_type in ENDS
        and (one.step_id, one.attempt) == (f"s#{number}", attempt)
        and one.reason != "no need"
    ]
    if not mine:
        events.append(of_step(data.draw(st.sampled_from(ENDS)), number, attempt))
        mine = [len(events)]
    place = data.draw(st.integers(mine[0], len(events)))
    events.insert(place, of_step(data.draw(st.sampled_from(ENDS)), number, attempt))
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, events)
        whole = path.read_bytes()
        offset = sum(map(len, whole.splitlines(keepends=True)[:place]))
        found = check(path, ID)

        assert not found.ok
        assert found.seq == place
        assert found.region is not None
        assert found.region.offset == offset
        said = f"attempt {attempt} of step 's#{number}' has ended at seq {mine[0]} already"
        assert found.region.problem == said
        with pytest.raises(LogDamagedError, match="has ended at seq"):
            list(read(path, ID))
        with pytest.raises(LogDamagedError, match=f"seq {place + 1}"), writing(path):
            pass
        assert path.read_bytes() == whole


def test_a_second_start_is_damage(tmp_path: Path) -> None:
    once = of_step("step_start", 1, 1)
    path = written(str(tmp_path), [start(), once, of_step("step_start", 1, 1)])
    assert check(path, ID).region is not None


def test_only_the_last_attempts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_MOST", 3)
    known = attempts.Attempts()
    for number in range(50):
        for kind in ("step_start", "step_finish"):
            assert known.add(of_step(kind, number, 1, seq=number + 1)) is None
        assert known.add(of_step("step_fail", number, 1, seq=99)) is not None
    assert len(known._known) + len(known._older) <= 6


ran: list[str] = []
failed: list[str] = []


@step
def work() -> str:
    ran.append("work")
    return "done"


@workflow
def flow() -> str:
    found = work()
    if not failed:
        failed.append("flow")
        raise ValueError("no")
    return found


def test_a_run_with_a_second_end_is_resumed_only_once_the_damage_is_accepted() -> None:
    ran.clear()
    failed.clear()
    configure(log_dir="logs", durability="os")
    with pytest.raises(ValueError, match="no"):
        flow.options(workflow_id=ID)()
    path = Path("logs") / f"{ID}.jsonl"
    with writing(path) as writer:
        writer.append(event("step_finish", step_id="work", step="work", execution=2))

    assert "attempt 1 of step 'work' has ended at seq 3 already" in verify(ID).problems[0]
    with pytest.raises(LogDamagedError, match="repair"):
        flow.options(workflow_id=ID)()
    repair(ID)
    assert flow.options(workflow_id=ID)() == "done"
    assert ran == ["work"]
    assert verify(ID).ok
