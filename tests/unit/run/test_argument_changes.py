"""Steps that change what they are given: reported in the first run, refused with ``strict``."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from crashes import die_at, go, killed
from tapps_otel import Backoff, configure, history, settings, skip, step, workflow
from tapps_otel.errors import SettingsError, StepInputError
from tapps_otel.report.history import remarks
from tapps_otel.run.argument_changes import watch
from tapps_otel.run.values import Signature

QUICK = Backoff(0.001, 1, 0.001)


class Model(BaseModel):
    names: list[str] = []


@dataclass
class Basket:
    items: list[Any] = field(default_factory=list)

    @step
    def put(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @step
    def count(self) -> int:
        return len(self.items)


@dataclass(slots=True)
class Slotted:
    items: list[Any] = field(default_factory=list)


def append(to: Any) -> None:
    to.append(1)


CHANGES: list[tuple[Any, Callable[[Any], Any]]] = [
    ([1], append),
    ({"a": [1]}, lambda given: append(given["a"])),
    ({"a": 1}, lambda given: given.update(b=2)),
    ({1}, lambda given: given.add(2)),
    (([1], 2), lambda given: append(given[0])),
    (deque([2]), append),
    (bytearray(b"a"), append),
    (Basket(), lambda given: append(given.items)),
    (Basket([Basket()]), lambda given: append(given.items[0].items)),
    (Slotted(), lambda given: append(given.items)),
    (Model(), lambda given: append(given.names)),
    ([Model()], lambda given: append(given[0].names)),
    ([1], lambda given: given.append(threading.Lock())),
    ({"b": 1, "a": 2}, lambda given: given.update(a=3)),
]


@pytest.mark.parametrize(("given", "change"), CHANGES, ids=[repr(one)[:20] for one, _ in CHANGES])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_change_of_an_argument_is_reported(
    given: Any, change: Any, key: str | None, log: Any, caplog: Any
) -> None:
    @step(key=key)
    def work(number: int, what: object) -> int:
        change(what)
        return number

    @workflow
    def flow() -> int:
        return work(1, copy.deepcopy(given)) + work(2, copy.deepcopy(given))

    go(flow)

    (note,) = log("annotation")
    assert note["name"] == "tapps.arguments_changed"
    assert note["attributes"] == {"step": name_of(log), "arguments": ["what"]}
    assert note["step_id"].endswith("work")
    (told,) = caplog.records
    assert "changed what while it ran" in told.getMessage()


def name_of(log: Any) -> str:
    name: str = log("step_start")[0]["step"]
    return name


UNCHANGED: list[tuple[Any, Callable[[Any], Any]]] = [
    ([2, 1], sorted),
    ({"b": 1, "a": 2}, lambda given: given.update(b=given.pop("b"))),
    ([1], lambda given: (given.append(2), given.pop())),
    (Basket([1]), lambda given: given.items),
    (deque([1]), list),
    ("a", str.upper),
]


@pytest.mark.parametrize(("given", "use"), UNCHANGED, ids=[repr(one)[:20] for one, _ in UNCHANGED])
def test_what_is_used_and_not_changed_is_not_reported(given: Any, use: Any, reported: Any) -> None:
    @step
    def work(what: object) -> None:
        use(what)

    @workflow
    def flow() -> None:
        work(given)

    go(flow)
    assert not reported()


def test_a_method_that_changes_its_object_is_reported(log: Any, caplog: Any) -> None:
    @workflow
    def flow() -> int:
        basket = Basket()
        basket.put("a")
        return basket.count()

    assert go(flow) == 1
    assert log("annotation")[0]["attributes"] == {"step": "Basket.put", "arguments": ["self"]}
    shown = "\n".join(str(line) for line in remarks(history("r")))
    assert "tapps.arguments_changed" in shown


@pytest.mark.slow
def test_it_is_reported_for_async_steps_retries_and_skips(log: Any) -> None:
    @step
    async def later(what: list[int]) -> None:
        await asyncio.sleep(0)
        what.append(1)

    @step(retries=1)
    def again(what: list[int]) -> None:
        what.append(1)
        if len(what) == 1:
            raise OSError

    @step
    def skipped(what: list[int]) -> None:
        what.append(1)
        skip("enough")

    @workflow
    async def flow() -> None:
        await later([])
        again([])
        skipped([])

    go(flow)
    told = [one["attributes"]["step"].rpartition(".")[2] for one in log("annotation")]
    assert told == ["later", "again", "skipped"]


def test_what_is_ignored_may_change(reported: Any) -> None:
    @step(ignore=("cache",))
    def work(number: int, cache: dict[int, int]) -> None:
        cache[number] = 1

    @workflow
    def flow() -> None:
        work(1, {})

    go(flow)
    assert not reported()


def test_strict_refuses_a_step_that_changes_its_arguments(log: Any) -> None:
    configure(strict=True)

    @step(retries=3)
    def work(what: list[int]) -> None:
        what.append(1)

    @workflow
    def flow() -> None:
        work([])

    with pytest.raises(StepInputError, match=r"changed what while it ran.*strict") as caught:
        go(flow)
    assert caught.value.path == "$.what"
    (end,) = log("step_fail")
    assert end["error"]["type"].endswith("StepInputError")
    assert history("r").status == "failed"


@pytest.mark.parametrize("strict", [False, True])
def test_a_failing_step_that_changed_its_arguments_keeps_its_error(
    log: Any, caplog: Any, strict: bool
) -> None:
    configure(strict=strict)

    @step(retries=1, backoff=QUICK)
    def work(what: list[int]) -> None:
        what.append(1)
        raise OSError(f"with {len(what)}")

    @workflow
    def flow() -> None:
        work([])

    with pytest.raises(OSError, match="with 2"):
        go(flow)
    assert [one["event_type"] for one in log()][1:-1] == [
        "step_start", "annotation", "step_fail", "step_start", "step_fail",
    ]  # fmt: skip
    assert log("annotation")[0]["attributes"] == {"step": name_of(log), "arguments": ["what"]}
    assert [one["error"]["type"] for one in log("step_fail")] == ["OSError", "OSError"]
    assert len([one for one in caplog.records if "changed what" in one.getMessage()]) == 1


def test_it_is_reported_for_async_steps_that_fail(log: Any) -> None:
    @step
    async def work(what: dict[str, int]) -> None:
        what["a"] = 1
        raise OSError

    @workflow
    async def flow() -> None:
        with contextlib.suppress(OSError):
            await work({})

    go(flow)
    assert [one["attributes"]["arguments"] for one in log("annotation")] == [["what"]]


def test_a_failing_step_that_changed_nothing_is_not_reported(reported: Any) -> None:
    @step
    def work(what: list[int]) -> None:
        raise OSError(sorted(what))

    @workflow
    def flow() -> None:
        with contextlib.suppress(OSError):
            work([2, 1])

    go(flow)
    assert not reported()


def test_strict_refuses_a_change_of_an_earlier_try(log: Any) -> None:
    configure(strict=True)

    @step(retries=1, backoff=QUICK)
    def work(what: list[int]) -> None:
        if not what:
            what.append(1)
            raise OSError

    @workflow
    def flow() -> None:
        work([])

    with pytest.raises(StepInputError, match="changed what while it ran"):
        go(flow)
    assert [one["error"]["type"].rpartition(".")[2] for one in log("step_fail")] == [
        "OSError", "StepInputError",
    ]  # fmt: skip


def test_strict_is_a_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPPS_OTEL_STRICT", "true")
    monkeypatch.setattr(settings, "_current", None)
    assert settings.current().strict
    with pytest.raises(SettingsError, match="strict"):
        configure(strict="perhaps")  # type: ignore[arg-type]


def test_a_run_that_was_told_of_a_change_is_another_after_a_crash(reported: Any) -> None:
    """Why it is reported: what is not run on resume changes nothing."""

    @step
    def put(what: list[int]) -> None:
        what.append(1)

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> list[int]:
        what: list[int] = []
        put(what)
        last()
        return what

    assert go(flow, workflow_id="uncrashed") == [1]
    killed(lambda: go(flow), at="last")
    assert "arguments_changed" in reported()
    assert go(flow) == []


def test_scalars_are_not_watched() -> None:
    def work(a: object, b: object, c: object, d: object, e: object) -> None: ...

    signature = Signature(work)
    assert not signature.digest((1, "a", None, True, 1.5), {})[2]
    assert not signature.digest((1, "a", None, True), {"e": 1.5})[2]
    assert not signature.parts((1, "a", None, True), {"e": 1.5})
    assert signature.digest((1, "a", None, True, [1]), {})[2]
    assert signature.parts((1, "a", None, True, [1]), {})


def test_large_arguments_are_not_watched() -> None:
    def work(what: list[int]) -> None: ...

    assert watch(Signature(work).parts(([1],), {})) is not None
    assert watch(Signature(work).parts((list(range(100_000)),), {})) is None
