"""Runs that call runs, killed at every event of every log, and resumed: as if never killed."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crashes import Effects, appends, go, killed, label
from effort import sample
from independent_checker import check
from tapps_otel import configure, history, list_runs, resume, settings, step, verify, workflow
from tapps_otel.errors import RunNotFoundError
from tapps_otel.log.event import Event

did = Effects(Path())  # every test gives its own
logs = Path()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "_given", settings._given)
    monkeypatch.setattr(settings, "_current", settings._current)
    monkeypatch.setitem(globals(), "did", Effects(tmp_path / "effects"))
    configure(log_dir=tmp_path / "logs", durability="os")
    return tmp_path / "logs"


@step
def book(what: str) -> str:
    did(f"book {what}")
    return f"{what} booked"


@step
def refuse(what: str) -> str:
    raise ValueError(f"no {what}")


@step
def note(text: str) -> str:
    did(f"note {text}")
    return text


@workflow
def invoice(item: str) -> str:
    return book(f"{item}'s invoice")


@workflow
def order(item: str) -> list[str]:
    return [book(item), invoice.options(workflow_id=f"invoice-{item}")(item)]


@workflow
def hopeless(item: str) -> str:
    book(item)
    return refuse(item)


@step
def parcel(item: str) -> list[str]:
    return [note(f"parcel of {item}"), *order.options(workflow_id=f"order-{item}")(item)]


@workflow
def day() -> list[Any]:
    done: list[Any] = [order.options(workflow_id="order-lamp")("lamp"), order.resume("order-lamp")]
    try:
        hopeless.options(workflow_id="hopeless")("moon")
    except ValueError as error:
        done.append(note(str(error)))
    return [*done, parcel("cup"), book("taxi")]


@step
async def book_later(what: str) -> str:
    await asyncio.sleep(0)
    did(f"book {what}")
    return f"{what} booked"


@workflow
async def invoice_later(item: str) -> str:
    return await book_later(f"{item}'s invoice")


@workflow
async def order_later(item: str) -> list[str]:
    return list(
        await asyncio.gather(
            book_later(item), invoice_later.options(workflow_id=f"invoice-{item}")(item)
        )
    )


@workflow
async def day_later() -> list[Any]:
    orders = [order_later.options(workflow_id=f"order-{one}")(one) for one in ("lamp", "cup")]
    done = list(await asyncio.gather(*orders))
    return [*done, await order_later.resume("order-cup"), await book_later("taxi")]


LAMP, CUP = (["lamp booked", "lamp's invoice booked"], ["cup booked", "cup's invoice booked"])
RESULTS: dict[str, list[Any]] = {
    "day": [LAMP, LAMP, "no moon", ["parcel of cup", *CUP], "taxi booked"],
    "day_later": [LAMP, CUP, CUP, "taxi booked"],
}


def events_of(call: Callable[[], object]) -> list[str]:
    """What ``call`` writes, of all runs together: ``run type step_id``."""
    written: list[str] = []

    def write_down(_: int, event: Event) -> None:
        written.append(f"{event.workflow_id} {label(event)}")

    with appends(after=write_down):
        call()
    return written


def resume_children() -> None:
    """Resume what was interrupted, a run at a time: those that others call first."""
    interrupted = [one for one in list_runs(status="interrupted") if one.workflow_id != "r"]
    by_depth = sorted(interrupted, key=lambda one: not one.workflow_id.startswith("invoice"))
    for one in by_depth:
        with suppress(ValueError, RunNotFoundError):  # of the hopeless one; of an empty log
            found = resume(one.workflow_id)
            if inspect.iscoroutine(found):
                asyncio.run(_awaited(found))


async def _awaited(made: Any) -> Any:
    return await made


def check_logs(folder: Path) -> None:
    """Chains hold, all runs have ended, and what has finished was not begun again."""
    for path in folder.glob("*.jsonl"):
        finished: Counter[str] = Counter()
        for one in check(path):
            if one["event_type"] == "step_start":
                assert not finished[one["step_id"]], f"{one['step_id']} runs again"
            elif one["event_type"] == "step_finish":
                finished[one["step_id"]] += 1
        assert history(path.stem).status == ("failed" if path.stem == "hopeless" else "completed")
        verify(path.stem).raise_if_bad()


def crash_points(count: int) -> Iterator[tuple[str, int]]:
    for number in range(1, count + 1):
        yield "before", number
        if number < count:
            yield "after", number


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "children_first"),
    sample(
        [
            pytest.param(day, False, id="sync"),
            pytest.param(day, True, id="sync, children first"),
            pytest.param(day_later, False, id="async"),
            pytest.param(day_later, True, id="async, children first"),
        ],
        1,
    ),
)
def test_runs_that_call_runs_are_resumed_from_every_event(
    folder: Path, flow: Any, *, children_first: bool
) -> None:
    expected = RESULTS[flow.name]
    written = events_of(lambda: go(flow))
    assert go(flow) == expected
    effects = Counter(did.all)
    assert set(effects.values()) == {1}

    for moment, number in crash_points(len(written)):
        configure(log_dir=folder / f"{moment}-{number}")
        did.forget()
        at: dict[str, Any] = {moment: number}
        killed(lambda: go(flow), **at)
        if children_first:
            resume_children()

        assert go(flow) == expected
        assert go(flow) == expected  # from the log alone
        check_logs(folder / f"{moment}-{number}")
        again = Counter(did.all) - effects
        assert set(did.all) == set(effects)
        # At most what was done and not recorded yet.
        undone = moment == "before" and "step_finish" in written[number - 1]
        assert again.total() <= (1 if undone or flow is day_later else 0), (moment, number, again)


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_execution_comes_to_its_end(folder: Path) -> None:
    """Each execution gets a few events further: no run is stuck, and none begins anew."""
    for _ in range(60):
        try:
            killed(lambda: go(day), before=6)
        except AssertionError:  # it ended before that
            break
    assert go(day) == RESULTS["day"]
    check_logs(folder)


def test_a_second_run_takes_over_what_a_killed_one_began(folder: Path) -> None:
    """Two runs call the same child run: it is resumed by whoever comes first."""
    killed(lambda: go(day), after="step_start refuse")

    assert go(day, workflow_id="other") == RESULTS["day"]
    assert go(day) == RESULTS["day"]
    assert did.count("book lamp") == did.count("book cup") == 1
    check_logs(folder)
