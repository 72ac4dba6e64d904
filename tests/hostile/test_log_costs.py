"""Logs that were made to cost: time grows with their size and no faster, and all can be read.

Nothing is timed. What is done is counted, in lines of Python or in comparisons, for a log and for
one of twice its size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from commands import Cli
from logs import event, forge
from tapps_otel import events, history, verify
from tapps_otel.audit.export.lanes import Lanes
from tapps_otel.log.event import Event
from tapps_otel.past.fold import fold
from tapps_otel.past.plan import Plan

SIZE = 400


def lines_run(call: Callable[[], object]) -> int:
    """Count the lines of this package that a call executes, in generators and lambdas too."""
    counted = 0

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal counted
        if "tapps_otel" not in frame.f_code.co_filename:
            return None
        counted += kind == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return counted


def numbered(made: Iterable[Event]) -> list[Event]:
    found = list(made)
    for seq, one in enumerate(found, 1):
        one.seq = seq
    return found


def step_event(kind: str, step_id: str, attempt: int = 1, **fields: Any) -> Event:
    return event(f"step_{kind}", step_id=step_id, attempt=attempt, **fields)


def failed_then_finished(size: int) -> list[Event]:
    """All fail first, so that the failures that nothing has handled yet are many."""
    names = [f"s#{number}" for number in range(size)]
    error = {"type": "E", "message": ""}
    return [
        *(step_event("start", name) for name in names),
        *(step_event("fail", name, status="failed", error=error) for name in names),
        *(step_event("finish", name) for name in names),
    ]


def many_attempts(size: int) -> list[Event]:
    """Of one step; each ends as another than the last."""
    return [
        *(step_event("start", "s", number) for number in range(size)),
        *(step_event("fail", "s", number, status="failed") for number in range(size)),
    ]


def retried(size: int) -> list[Event]:
    """Each step of a scope fails and is called again, which leaves intervals behind."""
    return [
        one
        for number in range(size)
        for kind, attempt in (("start", 1), ("fail", 1), ("start", 2), ("finish", 2))
        for one in [step_event(kind, f"s#{number}", attempt, status="failed")]
    ]


@pytest.mark.parametrize("made", [failed_then_finished, many_attempts, retried])
def test_a_fold_grows_with_the_log_and_no_faster(made: Callable[[int], list[Event]]) -> None:
    def cost(size: int) -> int:
        given = numbered(made(size))
        return lines_run(lambda: Plan(fold("r", given)).past(None))

    small, large = cost(SIZE), cost(2 * SIZE)

    assert large <= 2.2 * small


def test_the_number_of_slashes_in_an_id_does_not_matter() -> None:
    """Each of them would be a scope, and a text almost as long as the id."""

    def cost(slashes: int) -> int:
        place = "/" * slashes
        given = numbered([step_event("start", place), step_event("finish", place)])
        return lines_run(lambda: fold("r", given))

    assert cost(1_000) == cost(420_000)


def test_what_is_due_is_found_without_looking_at_all_intervals() -> None:
    folded = fold("r", numbered(retried(SIZE)))
    scope, steps = folded.scope(None), folded.steps

    assert len(scope.not_due) == SIZE
    assert lines_run(lambda: scope.due(steps[-1])) == lines_run(lambda: scope.due(steps[0])) <= 5
    assert all(scope.due(one) for one in steps)


def test_lanes_of_open_spans_grow_with_their_number_and_no_faster() -> None:
    def cost(size: int) -> int:
        def lay_out() -> None:
            lanes = Lanes(count(1).__next__)
            for number in range(size):
                lanes.begin(f"{number}", None)
            for number in range(size):  # none fits beside another
                lanes.place(f"{number}", None, number, 10 * size)

        return lines_run(lay_out)

    small, large = cost(SIZE), cost(2 * SIZE)

    assert large <= 2.2 * small


# ---------------------------------------------------------------- what can be read


ODD = {
    "a lone surrogate": (rb'"\ud800"', "\ud800"),
    "an infinite number": (b"1e999", "1e999"),
    "a number of 6000 digits": (b"9" * 6000, "9" * 6000),
    "bytes that are not UTF-8": (b'"\xff"', "\ufffd"),
}


def write_raw(folder: Path, bodies: Iterable[bytes]) -> None:
    """Write a log from the text of its events, with a chain that holds."""
    folder.mkdir()
    sha = sha256(b"r").hexdigest()
    with (folder / "r.jsonl").open("wb") as file:
        for seq, rest in enumerate(bodies, 1):
            body = b'{"v":1,"seq":%d,%b' % (seq, rest)
            sha = sha256(sha.encode() + body).hexdigest()
            file.write(b'%b,"sha":"%b"}\n' % (body, sha.encode()))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["unknown", "result", "inputs"])
def test_what_verify_accepts_can_be_read(odd: str, field: str, cli: Cli, tmp_path: Path) -> None:
    raw, value = ODD[odd]
    common = (
        b'"workflow_id":"r","timestamp":"2026-11-24T00:00:00.000000000Z","execution":1,'
        b'"%b":%b' % (field.encode(), raw)
    )
    write_raw(
        tmp_path / "logs",
        [
            b'"event_type":"workflow_start",' + common,
            b'"event_type":"workflow_end","status":"completed",' + common,
        ],
    )
    folder = tmp_path / "logs"

    assert verify("r", log_dir=folder).ok
    assert [getattr(one, field) for one in events("r", log_dir=folder)] == [value] * 2
    assert history("r", log_dir=folder).result == (value if field == "result" else None)
    for command in ("show r", "show r --json", "list", "timeline r"):
        assert cli(*command.split(), "--log-dir", str(folder)).code == 0, command


def test_long_texts_of_a_log_are_cut_in_a_list(cli: Cli, tmp_path: Path) -> None:
    long = "n" * 100_000
    forge(
        tmp_path / "logs",
        "r",
        [
            {"event_type": "workflow_start", "workflow": {"name": long}},
            {"event_type": "step_start", "step_id": long, "step": long},
            {"event_type": "workflow_end", "status": long},
        ],
    )
    done = cli("list", "--log-dir", str(tmp_path / "logs"))

    assert done.code == 0
    assert len(done.out) < 2_000
