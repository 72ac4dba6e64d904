"""Steps for workers: a worker that is spawned imports this module by its name."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from crashes import Effects
from tapps_otel import (
    Backoff,
    annotate,
    bind,
    child_env,
    current_run,
    current_step,
    pause,
    skip,
    step,
    workflow,
)

__all__ = ["Inline", "Page", "Shop", "spawned"]


@contextmanager
def spawned(workers: int = 1, **options: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of spawned processes, which is shut down whatever the test does."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), **options)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Inline(Executor):
    """Executes each call at once, in the thread that submits it.

    :ivar submitted: number of calls
    """

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as executors do
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Page:
    name: str
    size: int


@dataclass(frozen=True)
class Shop:
    rate: int

    @step
    def price(self, amount: int) -> int:
        return self.rate * amount


class OwnError(Exception):
    def __init__(self, code: int, place: str) -> None:
        super().__init__(f"{code} at {place}")
        self.code, self.place = code, place


@step
def notes_twice(apart_ns: int) -> None:
    """Annotates twice, with at least this time between."""
    annotate("early")
    early = time.monotonic_ns()
    while time.monotonic_ns() < early + apart_ns:
        pass
    annotate("late")


@step
def draft(page: Page, tone: str = "warm") -> Page:
    return Page(f"{page.name}, {tone}", page.size)


@step
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


@step(timeout=0.01)
async def too_slow() -> int:
    await asyncio.Event().wait()
    return 1


@step
def where() -> int:
    return os.getpid()


@step
def identity() -> list[str]:
    one = current_step()
    return [one.step_id, str(one.number), one.idempotency_key, current_run().workflow_id]


@step
def nested(value: int) -> int:
    return double(double(value))


@step
def nested_in_threads(value: int) -> int:
    with bind(ThreadPoolExecutor(2)) as threads:
        return sum(threads.map(double, [value, value]))


@step
def double(value: int) -> int:
    return 2 * value


@step
def noted(text: str) -> int:
    annotate("said", text=text, token="secret=abcdefgh12345")
    return len(text)


@step
def noted_often(times: int, size: int) -> int:
    for at in range(times):
        annotate("long", at=at, text="x" * size)
    return times


@step
def skipped(reason: str) -> int:
    return skip(reason, 7)


@step
def made(path: str, size: int) -> int:
    Path(path).write_bytes(b"x" * size)
    current_step().artifact(path)
    return size


@step
def large(size: int) -> str:
    return "x" * size


@step
def not_json(value: int) -> Any:
    return threading.Lock() if value else value


@step(persist=False)
def fleeting(value: int) -> int:
    return value + 1


@step
def fails(code: int) -> int:
    raise OwnError(code, "work")


@step
def noting(did: str, number: int) -> int:
    Effects(Path(did))(f"{current_run().workflow_id} {number}")
    return number


@step
def says(what: object) -> str:
    return str(what)


@step
def exits(code: int) -> int:
    raise SystemExit(code)


@step
def interrupted(path: str) -> int:
    _wait_for(path)
    raise KeyboardInterrupt


@step
def keeps_socket() -> int:
    error = ValueError("with a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


@step(retries=2, backoff=Backoff(0))
def fails_twice(did: str) -> int:
    if Effects(Path(did))("try") < 3:
        raise OwnError(1, "work")
    return 3


@step
def dies_once(did: str) -> int:
    if Effects(Path(did))("try") < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2


@step(max_interruptions=2)
def dies(did: str) -> int:
    Effects(Path(did))("try")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@step(max_interruptions=1)
def dies_beside(did: str) -> int:
    """Kill its worker; the first two times once :func:`waits_beside` is executed, too."""
    effects = Effects(Path(did))
    number = effects("dies")
    while effects.count("waits") < min(number, 2):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@step
def waits_beside(did: str) -> int:
    """The first two times, take as long as its worker lives."""
    number = Effects(Path(did))("waits")
    while number < 3:
        time.sleep(0.01)
    return number


@step(retries=1, backoff=Backoff(3600))
def fails_for_long() -> int:
    raise OwnError(1, "work")


@step
def asks() -> str:
    return str(pause("sure?", type=str))


class Unreadable:
    """Cannot be loaded where it comes to."""

    def __init__(self, card: str) -> None:
        self.card = card

    def __reduce__(self) -> tuple[Any, ...]:
        return _unreadable, (self.card,)

    def __tapps_key__(self) -> str:
        return self.card


def _unreadable(card: str) -> Unreadable:
    raise ValueError(f"cannot load {card}")


@step(ignore=("card",), key="card")
def reads(card: Unreadable) -> str:
    return card.card


@step
def misfit(value: str) -> int:
    return value  # type: ignore[return-value]


def cannot_begin(path: str) -> None:
    """An initializer that fails, until a file exists."""
    if not Path(path).exists():
        raise RuntimeError("no database")


@step(on_interrupted="fail")
def pays_once() -> int:
    return 1


@step(on_interrupted="fail")
def pays_and_is_cancelled(did: str) -> None:
    Effects(Path(did))("pay")
    raise asyncio.CancelledError


def begins_when(path: str) -> None:
    """An initializer that waits for a file."""
    _wait_for(path)


def dies_at_first(did: str, times: int) -> None:
    """An initializer whose process dies, so many times."""
    if Effects(Path(did))("began") <= times:
        os.kill(os.getpid(), signal.SIGKILL)


@workflow
def orders(value: int) -> int:
    return double(value)


@step
def handles(value: int) -> int:
    return orders(value)


@step
def pays_inside() -> int:
    return pays_once()


def set_up(tenant: str) -> None:
    os.environ["TENANT"] = tenant


@step
def tenant(did: str, number: int) -> str:
    if number == 1 and Effects(Path(did))("tried") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.environ.get("TENANT", "none")


@step(on_interrupted="fail")
def pays(did: str) -> int:
    Effects(Path(did))("pay")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@step
def waits_for(path: str) -> int:
    _wait_for(path)
    return 1


def _wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


@step
def environment(name: str) -> str:
    return child_env().get(name, "")


def plain(value: int) -> int:
    return value + 100
