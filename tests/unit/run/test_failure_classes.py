"""Failures whose class is not to be found by its name: handlers take the branch of before."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import step, workflow
from tapps_otel.errors import FailureDetailError, StepFailedError
from tapps_otel.run import failures
from tapps_otel.run.failures import WorkflowModule


class ShopError(Exception):
    """Loaded in every process."""

    code = 400


@step
def after() -> None:
    die_at("after")


# ---------------------------------------------------------------- of functions


@workflow(name="local")
def with_a_class_of_its_own(seen: list[Any] | None = None) -> str:
    class LocalError(ShopError):
        code = 409

        def __init__(self, what: str) -> None:
            super().__init__(what)
            self.what = what

        @property
        def loud(self) -> str:
            return self.what.upper()

    @step(name="failing")
    def failing() -> None:
        raise LocalError("full")

    found = "nothing"
    try:
        failing()
    except LocalError as error:
        found = f"local {error.code} {error.loud} {isinstance(error, LocalError)} {error}"
    except ShopError:
        found = "shop"
    after()
    return found


def test_a_class_of_the_workflow_is_found_after_a_crash() -> None:
    assert go(with_a_class_of_its_own) == "local 409 FULL True full"
    killed(lambda: go(with_a_class_of_its_own, workflow_id="s"), at="after")

    outcome = in_child(lambda: go(with_a_class_of_its_own, workflow_id="s"))

    assert outcome.value == "local 409 FULL True full"


def test_a_class_of_the_workflow_is_found_beside_those_of_other_calls() -> None:
    """Each call makes it anew, and classes live until they are collected."""
    killed(lambda: go(with_a_class_of_its_own), at="after")
    gc.disable()
    try:
        for number in range(3):
            go(with_a_class_of_its_own, workflow_id=f"other{number}")
        assert go(with_a_class_of_its_own) == "local 409 FULL True full"
    finally:
        gc.enable()


def test_a_class_that_was_made_by_a_call_is_found() -> None:
    made = type("MadeError", (ShopError,), {"code": 410})

    @step
    def failing() -> None:
        raise made("gone")

    @workflow
    def flow() -> Any:
        found: Any = None
        try:
            failing()
        except made as error:  # type: ignore[misc]
            found = [error.code, type(error) is made]
        after()
        return found

    killed(lambda: go(flow), at="after")
    assert go(flow) == [410, True]


def test_a_class_of_a_script_that_was_loaded_twice_is_the_one_that_it_has_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script: Any = ModuleType("script")
    now, other = (type("Error", (ShopError,), {"__module__": "script"}) for _ in range(2))
    script.Error = now
    monkeypatch.setitem(sys.modules, "script", script)
    node = {"type": "__main__.Error", "message": "m", "args": ["m"]}

    assert type(failures.rebuild(node, _refuse, WorkflowModule("script"))) is now
    assert other in ShopError.__subclasses__()


# ---------------------------------------------------------------- of modules that are not loaded

MODULE = """
from {name} import ShopError
from tapps_otel.errors import StepFailedError

class Limited(ShopError):
    retry_after = 30

    def __init__(self, tries):
        super().__init__(f"after {{tries}} tries")
        self.tries = tries

    def hint(self):
        return "wait"

class Stopped(BaseException):
    pass

class Several(ExceptionGroup):
    pass

class Unknown(StepFailedError):
    pass
"""


@pytest.fixture
def _lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that only the step imports."""
    (tmp_path / "lazy_shop.py").write_text(MODULE.format(name=__name__))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    yield
    sys.modules.pop("lazy_shop", None)


def lazily(make: Callable[[Any], BaseException], look: Callable[[BaseException], Any]) -> Any:
    """A workflow that looks at a failure whose class only its step's process has loaded."""

    @step
    def failing() -> None:
        raise make(importlib.import_module("lazy_shop"))

    @workflow
    def flow() -> Any:
        found = None
        try:
            failing()
        except BaseException as error:  # noqa: BLE001 - any
            found = look(error)
        after()
        return repr(found)

    return flow


def limited(shop: Any) -> BaseException:
    error: BaseException = shop.Limited(3)
    return error


def both(make: Callable[[Any], BaseException], look: Callable[[Any], Any]) -> list[Any]:
    uncrashed = in_child(lambda: go(lazily(make, look), workflow_id="uncrashed"))
    killed(lambda: go(lazily(make, look)), at="after")
    assert "lazy_shop" not in sys.modules
    resumed = in_child(lambda: go(lazily(make, look)))
    return [uncrashed.value or uncrashed.error, resumed.value or resumed.error]


def branch(error: BaseException) -> str:
    """Which handler takes it."""
    try:
        raise error
    except KeyError:
        return "key"
    except ShopError:
        return "shop"
    except Exception:  # noqa: BLE001
        return "any"
    except BaseException:  # noqa: BLE001
        return "base"


def is_loaded_now(error: BaseException) -> bool:
    """A handler that imports the class itself."""
    return isinstance(error, importlib.import_module("lazy_shop").Limited)


LOOKS: list[Callable[[Any], Any]] = [
    branch,
    str,
    lambda error: (type(error).__name__, error.__class__.__module__, error.args),
    lambda error: f"{type(error).__module__}: {type(error).__qualname__}",
    lambda error: error.tries,
    lambda error: hasattr(error, "__notes__"),
    lambda error: vars(error)["tries"],
    is_loaded_now,
]


@pytest.mark.usefixtures("_lazy")
@pytest.mark.parametrize("look", LOOKS)
def test_a_handler_decides_as_before_where_the_class_is_not_loaded(
    look: Callable[[Any], Any],
) -> None:
    uncrashed, resumed = both(limited, look)
    assert resumed == uncrashed


@pytest.mark.usefixtures("_lazy")
@pytest.mark.parametrize("kind", ["Stopped", "Several", "Unknown"])
def test_a_stand_in_is_caught_as_its_class_was(kind: str) -> None:
    def make(shop: Any) -> BaseException:
        arguments: dict[str, tuple[Any, ...]] = {
            "Several": ("two", [ShopError("a"), KeyError("b")]),
            "Unknown": ("shop.Error", "c"),
        }
        error: BaseException = getattr(shop, kind)(*arguments.get(kind, ()))
        return error

    def look(error: BaseException) -> Any:
        parts = []
        try:
            raise error
        except* ShopError as found:
            parts = [str(one) for one in found.exceptions]
        except* BaseException as found:  # noqa: BLE001
            parts += [type(one).__name__ for one in found.exceptions]
        return branch(error), parts

    uncrashed, resumed = both(make, look)
    assert resumed == uncrashed


@pytest.mark.usefixtures("_lazy")
@pytest.mark.parametrize("name", ["code", "retry_after", "hint", "response"])
def test_what_only_the_class_says_is_refused(name: str) -> None:
    """Also what a base says: the class may say something else."""
    flow = lazily(limited, lambda error: getattr(error, name, None))
    killed(lambda: go(flow), at="after")

    with pytest.raises(FailureDetailError, match=r"lazy_shop\.Limited is not loaded: import it"):
        go(flow)


@pytest.mark.usefixtures("_lazy")
def test_a_stand_in_is_a_step_failed_error() -> None:
    killed(lambda: go(lazily(limited, str)), at="after")

    def look(error: BaseException) -> Any:
        assert isinstance(error, StepFailedError)
        return error.type, error.message, str(error)

    told = ("lazy_shop.Limited", "after 3 tries", "after 3 tries")
    assert go(lazily(limited, look)) == repr(told)


@pytest.mark.usefixtures("_lazy")
def test_a_stand_in_that_fails_a_step_is_written_as_its_class(did: Effects) -> None:
    @step
    def failing() -> None:
        raise limited(importlib.import_module("lazy_shop"))

    @step
    def note(point: str) -> None:
        did(point)
        die_at(point)

    @step
    def outer() -> None:
        try:
            failing()
        except ShopError:
            note("inside")
            raise

    @workflow
    def flow() -> Any:
        found: Any = None
        try:
            outer()
        except ShopError as error:
            found = [type(error).__name__, error.tries]  # type: ignore[attr-defined]
        note("outside")
        return found

    killed(lambda: go(flow), at="inside")
    killed(lambda: go(flow), at="outside")
    assert "lazy_shop" not in sys.modules

    assert go(flow) == ["Limited", 3]


def test_a_log_without_the_names_of_bases_is_read() -> None:
    nameless = failures.rebuild({}, _refuse)
    assert (type(nameless), str(nameless)) == (StepFailedError, "?: ")
    error = failures.rebuild({"type": "no.such.Error", "message": "m"}, _refuse)
    assert type(error) is StepFailedError
    assert str(error) == "no.such.Error: m"


def _refuse(name: str, reason: str) -> Any:
    raise RuntimeError(f"{name}: {reason}")
