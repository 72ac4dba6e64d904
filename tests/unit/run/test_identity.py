"""Which step a call is: its function, its object, its arguments; the same in every execution."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from crashes import Effects, die_at, go, killed
from tapps_otel import Run, history, step, workflow
from tapps_otel.errors import DivergenceError, StepInputError


@step
def last() -> None:
    die_at("last")


def resumed(flow: Callable[[], Any]) -> Any:
    """What a flow gives that was killed in its last step, and resumed."""
    killed(lambda: go(flow), at="last")
    return go(flow)


def names() -> list[str]:
    return [found.name for found in history("r").steps]


# ---------------------------------------------------------------- functions


def test_a_method_has_the_name_of_its_class() -> None:
    class Shop:
        @step
        def price(self) -> int:
            return 1

    @workflow
    def flow() -> int:
        return Shop().price()

    go(flow)
    assert names() == ["Shop.price"]


def load_from(module: str, did: Effects) -> Callable[[str], str]:
    """The step ``load`` of another module."""
    made = ModuleType(module)
    source = f"def load(name: str) -> str:\n    did({module!r})\n    return {module!r} + name\n"
    exec(source, vars(made) | {"did": did}, vars(made))
    made.load.__module__ = module
    return step(made.load)


def test_steps_of_one_name_in_two_modules_keep_their_results(did: Effects) -> None:
    one, other = load_from("shop.files", did), load_from("shop.tables", did)
    turned = False

    @workflow
    def flow() -> list[str]:
        both = [other("x"), one("x")] if turned else [one("x"), other("x")]
        last()
        return sorted(both)

    killed(lambda: go(flow), at="last")
    turned = True
    assert go(flow) == ["shop.filesx", "shop.tablesx"]
    assert did.all == ["shop.files", "shop.tables"]


def test_a_partial_is_a_step_of_its_function(did: Effects) -> None:
    def scale(number: int, by: int) -> int:
        did("scale")
        return number * by

    twice = step(functools.partial(scale, by=2))

    @workflow
    def flow() -> int:
        got = twice(4)
        last()
        return got

    assert resumed(flow) == 8
    assert did.all == ["scale"]
    assert names() == ["scale", "last"]


def test_a_callable_object_is_a_step_of_its_class() -> None:
    class Scale:
        def __call__(self, number: int) -> int:
            return number * 2

    @workflow
    def flow() -> int:
        return step(Scale())(4)

    assert go(flow) == 8
    assert names() == ["Scale.__call__"]


def test_class_and_static_methods_are_steps(did: Effects) -> None:
    class Shop:
        rate = 3

        @classmethod
        @step
        def price(cls, number: int) -> int:
            did("price")
            return number * cls.rate

        @staticmethod
        @step
        def tax(number: int) -> int:
            did("tax")
            return number + 1

    @workflow
    def flow() -> list[int]:
        got = [Shop.price(2), Shop.tax(2)]  # type: ignore[arg-type, call-arg]
        last()
        return got

    assert resumed(flow) == [6, 3]
    assert did.all == ["price", "tax"]


@pytest.mark.parametrize("kind", [classmethod, staticmethod])
@pytest.mark.parametrize("decorator", [step, workflow])
def test_a_decorator_above_a_class_method_is_refused(kind: Any, decorator: Any) -> None:
    with pytest.raises(TypeError, match=rf"below @{kind.__name__}, next to the function"):
        decorator(kind(lambda: None))


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="@step decorates a function, not 7"):
        step(7)  # type: ignore[call-overload]


# ---------------------------------------------------------------- objects


@dataclass
class Database:
    name: str

    @step
    def count(self, table: str) -> str:
        return f"{self.name}.{table}"


class Plain:
    def __init__(self, name: str) -> None:
        self.name = name

    @step
    def count(self, table: str) -> str:
        return f"{self.name}.{table}"


class Keyed:
    def __init__(self, name: str) -> None:
        self.name, self.lock = name, threading.Lock()

    def __tapps_key__(self) -> str:
        return self.name

    @step
    def count(self, table: str) -> str:
        return f"{self.name}.{table}"


@pytest.mark.parametrize("kind", [Database, Plain, Keyed])
def test_each_object_gets_its_own_results(kind: Any) -> None:
    turned = False

    @workflow
    def flow() -> dict[str, str]:
        order = ["prod", "test"] if turned else ["test", "prod"]
        got = {name: kind(name).count("users") for name in order}
        last()
        return got

    killed(lambda: go(flow), at="last")
    turned = True
    assert go(flow) == {"test": "test.users", "prod": "prod.users"}


def test_another_object_is_another_input(did: Effects) -> None:
    name = "test"

    @workflow
    def flow() -> str:
        got = Database(name).count("users")
        last()
        return got

    killed(lambda: go(flow), at="last")
    name = "prod"
    with pytest.raises(DivergenceError, match="users"):
        go(flow)


class Connected:
    """Nothing tells its objects apart in another execution: a lock has no form."""

    def __init__(self, name: str) -> None:
        self.name, self.lock = name, threading.Lock()

    @step
    def count(self, table: str) -> str:
        return f"{self.name}.{table}"

    @step(ignore=("self",))
    def size(self, table: str) -> int:
        return len(table)


def test_one_object_with_a_connection_just_works() -> None:
    @workflow
    def flow() -> list[str]:
        database = Connected("test")
        got = [database.count("users"), database.count("items")]
        last()
        return got

    assert resumed(flow) == ["test.users", "test.items"]


def test_a_second_object_with_a_connection_is_refused() -> None:
    @workflow
    def flow() -> list[str]:
        return [Connected(name).count("users") for name in ("test", "prod")]

    with pytest.raises(StepInputError) as caught:
        go(flow)
    assert str(caught.value).partition(" (")[0].removesuffix(", at $.self") == (
        "step 'Connected.count' is called on a second Connected, which cannot be told from the "
        "first in a later execution: on resume one could get the results of the other. Give the "
        "class a __tapps_key__() method, give the calls a key, or, for a @step whose objects may "
        'be mixed up, ignore=("self",)'
    )
    assert [found.status for found in history("r").steps] == ["completed"]


def test_objects_can_be_ignored_or_told_apart_by_keys() -> None:
    @workflow
    def flow() -> list[Any]:
        both = [Connected("test"), Connected("prod")]
        got: list[Any] = [one.size("users") for one in both]
        got += [one.count.options(key=one.name)("users") for one in both]
        last()
        return got

    assert resumed(flow) == [5, 5, "test.users", "prod.users"]


def size_in(database: Any, table: str) -> str:
    return f"{database.name}.{table}"


def size_of(table: str, database: Any) -> str:
    return f"{database.name}.{table}"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda database: functools.partial(size_in, database), "database"),
        (lambda database: functools.partial(size_of, database=database), "database"),
        (lambda database: database.find, "self"),
        (lambda database: database, "self"),
    ],
    ids=["partial", "partial by name", "bound method", "callable object"],
)
def test_what_a_callable_brings_along_counts_as_an_argument(make: Any, name: str) -> None:
    """One object without a form is taken as the one of before, a second is refused."""

    class Finder:
        def __init__(self, name: str, lock: Any = None) -> None:
            self.name, self.lock = name, lock

        def find(self, table: str) -> str:
            return f"{self.name}.{table}"

    class Called(Finder):
        def __call__(self, table: str) -> str:
            return self.find(table)

    one, other = Called("test"), Called("prod")
    locked, second = Called("a", threading.Lock()), Called("b", threading.Lock())
    turned = False

    @workflow
    def known() -> list[str]:
        both = [step(make(other)), step(make(one))] if turned else [step(make(one))]
        got = [found("users") for found in both]
        last()
        return got

    @workflow
    def unknown() -> list[str]:
        return [step(make(locked))("x"), step(make(locked))("y"), step(make(second))("x")]

    @workflow
    def ignored() -> list[str]:
        return [step(ignore=(name,))(make(found))("x") for found in (locked, second)]

    killed(lambda: go(known), at="last")
    turned = True
    with pytest.raises(DivergenceError):
        go(known)
    with pytest.raises(StepInputError, match=rf'ignore=\("{name}",\)'):
        go(unknown, workflow_id="s")
    assert go(ignored, workflow_id="t") == ["a.x", "b.x"]


def test_the_object_of_an_executor_is_no_argument_of_its_steps(did: Effects) -> None:
    """It changes from run to run."""

    class Executor:
        def __init__(self) -> None:
            self.calls = did.count("work")

        def work(self, number: int) -> int:
            did("work")
            return number

        def run(self) -> int:
            with Run.open("made", workflow_id="r") as run:
                found = run.call("work", self.work, 3)
                run.call("last", last)
                return found

    killed(lambda: Executor().run(), at="last")
    assert Executor().run() == 3
    assert did.all == ["work"]


async def test_options_of_an_async_method() -> None:
    class Shop:
        @step
        async def price(self, item: str) -> int:
            return len(item)

    assert await Shop().price.options(retries=2)("tea") == 3


# ---------------------------------------------------------------- arguments


def test_a_new_parameter_at_its_default_matches_the_old_record(did: Effects) -> None:
    def old(name: str) -> str:
        did("old")
        return name

    def new(name: str, loud: bool = False) -> str:
        did("new")
        return name.upper() if loud else name

    current: Callable[..., str] = step(name="greet")(old)

    @workflow
    def flow() -> str:
        got = current("ada")
        last()
        return got

    killed(lambda: go(flow), at="last")
    current = step(name="greet")(new)
    assert go(flow) == "ada"
    assert did.all == ["old"]


def test_an_argument_equal_to_its_default_is_the_same_as_none() -> None:
    calls = []

    @step
    def greet(name: str, loud: bool = False) -> str:
        calls.append(name)
        return name

    explicit = False

    @workflow
    def flow() -> str:
        got = greet("ada", loud=False) if explicit else greet("ada")
        last()
        return got

    killed(lambda: go(flow), at="last")
    explicit = True
    assert go(flow) == "ada"
    assert calls == []  # the first call was in the process that was killed


def test_a_divergence_shows_the_inputs() -> None:
    number = 1

    @step
    def save(number: int) -> int:
        return number

    @workflow
    def flow() -> int:
        got = save(number)
        last()
        return got

    killed(lambda: go(flow), at="last")
    number = 2
    with pytest.raises(DivergenceError, match=r'now:  \{"number":2\}'):
        go(flow)
