"""Which record a call takes: a run that was killed and resumed, and one that was not, compared.

A case is a set of calls, each with a label, that have something in common: a name, an object, the
arguments. A workflow makes them in order, in tasks or in threads, and tells what each gave. It is
killed after each step, and resumed in another process, which makes them the other way round: each
label must tell what it tells in the uncrashed run, and no finished step may run again.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import pytest
from pydantic import BaseModel, ConfigDict

from crashes import CRASHED, Effects, Outcome, die, go, in_child, killed
from effort import sample
from tapps_otel import Step, bind, configure, current_run, current_step, history, step, workflow
from tapps_otel.errors import RefusalError, StepError, StepNestingError
from tapps_otel.run.resolving import resolve

Calls = dict[str, Callable[[], Any]]
did = Effects(Path("effects"))  # in the test's own folder
again = False  # whether this process resumes


def note(what: str) -> str:
    did(what)
    return what


# ---------------------------------------------------------------- calls


@dataclass
class Database:
    name: str

    @step
    def count(self, table: str) -> str:
        return note(f"{self.name} {table}")


class Plain:
    def __init__(self, name: str) -> None:
        self.name = name

    @step
    def count(self, table: str) -> str:
        return note(f"{self.name} {table}")


class Keyed(Plain):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lock = threading.Lock()  # has no form

    def __tapps_key__(self) -> str:
        return self.name


class Model(BaseModel):
    model_config = ConfigDict(ignored_types=(Step,))  # pydantic takes functions alone for methods
    name: str

    @step
    def count(self, table: str) -> str:
        return note(f"{self.name} {table}")


@attrs.define
class Attrs:
    name: str

    @step
    def count(self, table: str) -> str:
        return note(f"{self.name} {table}")


def of_two(cls: Any) -> Callable[[], Calls]:
    return lambda: {
        name: functools.partial(cls(name=name).count, "users") for name in ("test", "prod")
    }


@dataclass
class Account:
    name: str

    def count(self, table: str) -> str:
        return note(f"{self.name} {table}")


class Crawler:
    """An executor that calls its own methods as steps, and whose attributes change."""

    def __init__(self) -> None:
        self.lock, self.calls = threading.Lock(), int(again)

    def count(self, table: str) -> str:
        self.calls += 1
        return note(table)


def of_called_methods() -> Calls:
    def called(account: Account) -> str:
        return current_run().call("count", account.count, "users")

    return {name: functools.partial(called, Account(name)) for name in ("test", "prod")}


def of_an_executors_methods() -> Calls:
    crawler = Crawler()

    def called(table: str) -> str:
        return current_run().call("count", crawler.count, table)

    return {table: functools.partial(called, table) for table in ("users", "orders")}


def of_one_connection() -> Calls:
    class Connection:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        @step
        def load(self, key: str) -> str:
            return note(key)

    connection = Connection()
    return {key: functools.partial(connection.load, key) for key in ("a", "b")}


def of_two_modules() -> Calls:
    def load_of(module: str) -> Callable[[], str]:
        space: dict[str, Any] = {"note": note, "__name__": module}
        exec(f"def load() -> str:\n    return note({module!r})", space)
        return step(space["load"])

    return {module: load_of(module) for module in ("shop.files", "shop.tables")}


class Base:
    @step
    def price(self, number: int) -> str:
        return note(f"base {number}")

    @staticmethod
    @step
    def tax(number: int) -> str:
        return note(f"base tax {number}")

    @classmethod
    @step
    def rate(cls, number: int) -> str:
        return note(f"{cls.__name__} rate {number}")


class Special(Base):
    @step
    def price(self, number: int) -> str:
        return note(f"special after {super().price(number)}")

    @staticmethod
    @step
    def tax(number: int) -> str:
        return note(f"special tax {number}")


def of_overrides() -> Calls:
    return {"base": lambda: Base().price(1), "special": lambda: Special().price(1)}


def of_class_and_static_methods() -> Calls:
    return {
        "base tax": lambda: Base.tax(1),
        "special tax": lambda: Special.tax(1),
        "base rate": lambda: Base.rate(1),  # type: ignore[arg-type, call-arg]
        "special rate": lambda: Special.rate(1),  # type: ignore[arg-type, call-arg]
    }


def scale(number: int, by: int) -> str:
    return note(f"{number} by {by}")


def of_partials() -> Calls:
    two, three = functools.partial(scale, by=2), functools.partial(scale, by=3)
    four = functools.partial(scale, 4)
    return {
        "4 by 2": lambda: step(two)(4),
        "4 by 3": lambda: step(three)(4),
        "4 by 5": lambda: step(four)(by=5),
        "5 by 5": lambda: step(functools.partial(scale, 5))(by=5),
    }


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, number: int) -> str:
        return note(f"{number} by {self.by}")


def of_callable_objects() -> Calls:
    return {f"4 by {by}": functools.partial(step(Scale(by)), 4) for by in (2, 3)}


def injecting(fn: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(fn)
    def wrapper(table: str) -> str:
        return fn("the database", table)

    return wrapper


@step
@injecting
def load(database: str, table: str) -> str:
    return note(f"{table} of {database}")


def of_an_injecting_decorator() -> Calls:
    return {name: functools.partial(load, name) for name in ("users", "orders")}


@step(name="price")
def old(number: int) -> str:
    return note(f"{number} in euro")


@step(name="price")
def new(number: int, currency: str = "euro") -> str:
    return note(f"{number} in {currency}")


def of_a_new_parameter() -> Calls:
    """The code is edited between the two executions."""
    priced = new if again else old
    return {"1": lambda: priced(1), "2": lambda: priced(2)}


@step
def fetch(place: str, number: int = 0) -> str:
    return note(f"{place} {number}")


def of_keys() -> Calls:
    return {key: functools.partial(fetch.options(key=key), key) for key in ("a", "b")}


def of_arguments() -> Calls:
    return {
        "a 0": lambda: fetch("a"),
        "b 0": lambda: fetch(place="b", number=0),
        "b 1": lambda: fetch("b", number=1),
    }


@step
def nested(depth: int) -> str:
    return note(f"{depth}") + (nested(depth - 1) if depth else "")


def of_recursion() -> Calls:
    return {"2": lambda: nested(2), "1": lambda: nested(1)}


@step
async def ask(name: str) -> str:
    await asyncio.sleep(0)
    return note(name)


@dataclass
class Agent:
    name: str

    @step
    async def ask(self, question: str) -> str:
        return note(f"{self.name} {question} {await ask(question)}")


def of_async_steps() -> Calls:
    return {name: functools.partial(ask, name) for name in ("a", "b")}


def of_async_methods() -> Calls:
    return {name: functools.partial(Agent(name).ask, "why") for name in ("ann", "bob")}


SYNC: dict[str, Callable[[], Calls]] = {
    "methods of dataclasses": of_two(Database),
    "methods of plain objects": of_two(Plain),
    "methods of objects with a key": of_two(Keyed),
    "methods of pydantic models": of_two(Model),
    "methods of attrs objects": of_two(Attrs),
    "methods of a connection": of_one_connection,
    "called methods of dataclasses": of_called_methods,
    "called methods of an executor": of_an_executors_methods,
    "steps of two modules": of_two_modules,
    "overrides": of_overrides,
    "class and static methods": of_class_and_static_methods,
    "partials": of_partials,
    "callable objects": of_callable_objects,
    "an injecting decorator": of_an_injecting_decorator,
    "a new parameter": of_a_new_parameter,
    "keys": of_keys,
    "arguments": of_arguments,
    "recursion": of_recursion,
}
ASYNC: dict[str, Callable[[], Calls]] = {
    "async steps": of_async_steps,
    "async methods": of_async_methods,
}


# ---------------------------------------------------------------- workflows


def turned(calls: Calls) -> list[str]:
    return list(reversed(calls)) if again else list(calls)


def in_order(made: Callable[[], Calls]) -> Any:
    @workflow(name="flow", on_divergence="rerun")  # else the guard refuses another order
    def flow() -> dict[str, str]:
        calls = made()
        return {name: calls[name]() for name in turned(calls)}

    return flow


def in_threads(made: Callable[[], Calls]) -> Any:
    @workflow(name="flow")
    def flow() -> dict[str, str]:
        calls = made()
        with ThreadPoolExecutor(2) as pool:
            futures = {name: pool.submit(bind(calls[name])) for name in turned(calls)}
            return {name: future.result() for name, future in futures.items()}

    return flow


def in_tasks(made: Callable[[], Calls]) -> Any:
    @workflow(name="flow")
    async def flow() -> dict[str, str]:
        calls = made()
        values = await asyncio.gather(*(awaited(calls[name]) for name in turned(calls)))
        return dict(zip(turned(calls), values, strict=True))

    return flow


def one_by_one(made: Callable[[], Calls]) -> Any:
    @workflow(name="flow", on_divergence="rerun")
    async def flow() -> dict[str, str]:
        calls = made()
        return {name: await awaited(calls[name]) for name in turned(calls)}

    return flow


async def awaited(call: Callable[[], Any]) -> str:
    found = await asyncio.to_thread(call)
    return str(await found) if inspect.isawaitable(found) else str(found)


CASES = [
    pytest.param(way, made, id=f"{name}, {way.__name__}")
    for cases, ways in ((SYNC, (in_order, in_threads, in_tasks)), (ASYNC, (one_by_one, in_tasks)))
    for name, made in cases.items()
    for way in ways
]


# ---------------------------------------------------------------- the comparison


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path) -> None:
    configure(log_dir=tmp_path / "logs", durability="os", spans=False)


def resumed(flow: Any, workflow_id: str) -> Outcome:
    """Run it in a process of its own, where everything comes the other way round."""

    def call() -> Any:
        global again  # noqa: PLW0603 - of the child alone
        again = True
        return go(flow, workflow_id=workflow_id)

    return in_child(call)


def finished(workflow_id: str) -> Iterable[str]:
    return [one.step_id for one in history(workflow_id).steps if one.status == "completed"]


def attempts(workflow_id: str) -> dict[str, int]:
    return {one.step_id: len(one.attempts) for one in history(workflow_id).steps}


@pytest.mark.parametrize(("way", "made"), sample(CASES, 10))
def test_each_call_has_its_own_record(
    way: Callable[[Callable[[], Calls]], Any], made: Callable[[], Calls]
) -> None:
    flow = way(made)
    whole = in_child(lambda: go(flow, workflow_id="whole"))
    assert whole.code == 0, whole.error
    assert len(set(whole.value.values())) == len(whole.value), "the labels tell the same"
    effects = sorted(did.all)

    for end in range(1, len(list(finished("whole"))) + 1):
        did.forget()
        name = f"killed{end}"
        killed(functools.partial(go, flow, workflow_id=name), finished=end)
        done = finished(name)
        outcome = resumed(flow, name)

        assert outcome.code == 0, outcome.error
        assert outcome.value == whole.value, f"killed after step {end}"
        assert len(attempts(name)) == len(attempts("whole"))
        assert [attempts(name)[one] for one in done] == [1] * len(list(done))
        assert set(did.all) == set(effects)
        # The log answers under its id, whoever asks.
        assert resumed(flow, name).value == whole.value


# ---------------------------------------------------------------- refused, resolved


@step
def deep(number: int) -> int:
    note("deep")
    return deep(number - 1) if number else 0


@workflow
def endless() -> int:
    return deep(300)


class Socket:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    @step
    def load(self, key: str) -> str:
        return note(key)


@workflow
def two_connections() -> list[str]:
    return [Socket().load("a"), Socket().load("a")]


@workflow
def two_crawlers() -> list[str]:
    return [current_run().call("count", Crawler().count, "users") for _ in range(2)]


def careless(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


@step
@careless
async def lost(name: str) -> str:
    return note(name)


@workflow
def loses_a_coroutine() -> str:
    return str(lost("a"))


@pytest.mark.parametrize(
    ("flow", "kind", "says", "ran"),
    [
        (endless, StepNestingError, "inside 64 steps, which is the limit", 64),
        (two_connections, StepError, "called on a second Socket", 1),
        (two_crawlers, StepError, "called on a second Crawler", 1),
        (loses_a_coroutine, StepError, "returned a coroutine, which has not run", 0),
    ],
)
def test_what_could_not_be_resumed_is_refused_in_the_first_run(
    flow: Any, kind: type[Exception], says: str, ran: int
) -> None:
    """And in a run that was killed and resumed, by the same error."""

    def refusal(workflow_id: str) -> str:
        with pytest.raises(kind) as caught:
            go(flow, workflow_id=workflow_id)
        return str(caught.value)

    first = in_child(lambda: refusal("whole"))
    assert first.code == 0, first.error
    assert says in first.value
    assert len(did.all) == ran
    assert history("whole").status == "failed"

    killed(lambda: go(flow, workflow_id="killed"), before="workflow_end")
    again = in_child(lambda: refusal("killed"))
    assert (again.value, again.error) == (first.value, "")
    assert history("killed").status == "failed"


@step(on_interrupted="fail")
def pay(amount: int) -> str:
    note(f"paid {amount}, {current_step().idempotency_key}")
    if not again:
        die()
    return f"{amount} paid"


@workflow
def order() -> list[str]:
    return [fetch("before"), pay(3), fetch("after")]


@pytest.mark.parametrize(("result", "paid"), [(b'"3 paid"', 1), (None, 2)])
def test_a_step_that_was_resolved(result: bytes | None, paid: int) -> None:
    """With its result it does not run again; else it does, under the same key."""
    whole = resumed(order, "whole")
    assert whole.value == ["before 0", "3 paid", "after 0"]
    did.forget()

    outcome = in_child(lambda: go(order, workflow_id="killed"))
    assert outcome.code == CRASHED
    with pytest.raises(RefusalError):
        go(order, workflow_id="killed")

    resolve("killed", "pay", result=result)
    assert resumed(order, "killed").value == whole.value
    payments = [one for one in did.all if one.startswith("paid")]
    assert (len(payments), len(set(payments))) == (paid, 1)
    assert did.count("before 0") == did.count("after 0") == 1


def test_async_functions_count_as_coroutine_functions() -> None:
    """For frameworks that ask, as Starlette does before it runs a task."""
    flow = in_tasks(of_async_steps)
    for one in (ask, Agent("ann").ask, flow):
        assert inspect.iscoroutinefunction(one)
        assert asyncio.iscoroutinefunction(one)
