"""Exceptions in the log, and as they are raised again on resume."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crashes import Effects, die_at, go, killed
from tapps_otel import Backoff, history, step, workflow
from tapps_otel.errors import StepFailedError

QUICK = Backoff(0.001, 1, 0.001)

Labels = Callable[..., list[str]]


class Slotted(Exception):  # noqa: N818 - it is what it is
    """Keeps its attributes where ``__dict__`` does not show them."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(f"slotted {code}")
        self.code = code


def _lookup() -> None:
    raise KeyError("k")


def _open() -> None:
    Path("/nothing/here").read_text()


def _decode() -> None:
    b"\xff".decode()


def _parse() -> None:
    json.loads("{")


def _call() -> None:
    raise subprocess.CalledProcessError(3, ["make", "all"])


def _import() -> None:
    raise ImportError("not here", name="nothing", path="/x")


def _slotted() -> None:
    raise Slotted(7)


def _nothing() -> None:
    raise ValueError


def _raised_by(body: Callable[[], None]) -> Exception:
    try:
        body()
    except Exception as error:  # noqa: BLE001 - any
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (_lookup, []),
        (_open, ["errno", "strerror", "filename"]),
        (_decode, ["start", "reason"]),
        (_parse, ["lineno", "pos", "doc"]),
        (_call, ["returncode", "cmd"]),
        (_import, ["name", "path"]),
        (_slotted, ["code"]),
        (_nothing, []),
    ],
)
def test_a_handled_exception_is_equal_after_resume(
    did: Effects, body: Callable[[], None], names: list[str]
) -> None:
    """Same class, text and attributes; or, where that cannot be, a StepFailedError that names
    both: never an exception of the class that has lost what it said.
    """
    raising = step(name="raising")(body)
    seen: list[Exception] = []

    def facts(error: Exception) -> list[Any]:
        return [type(error).__name__, str(error), *(getattr(error, name) for name in names)]

    @step
    def note() -> None:
        did("note")
        die_at("note")

    @workflow
    def flow() -> None:
        try:
            raising()
        except Exception as error:  # noqa: BLE001 - any
            seen.append(error)
        note()

    original = _raised_by(body)
    killed(lambda: go(flow), at="note")
    go(flow)

    (error,) = seen
    if isinstance(error, StepFailedError):
        assert error.type.endswith(type(original).__name__)
        assert str(original) in str(error)
    else:
        assert facts(error) == facts(original)
        assert [repr(one) for one in error.args] == [repr(one) for one in original.args]


def test_a_handled_group_is_raised_again_with_its_message(did: Effects) -> None:
    """An exception group has no JSON: a StepFailedError stands for it."""

    @step
    def raising() -> None:
        did("raising")
        raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])

    @step
    def note() -> None:
        die_at("note")

    seen: list[Exception] = []

    @workflow
    def flow() -> None:
        try:
            raising()
        except Exception as error:  # noqa: BLE001 - any
            seen.append(error)
        note()

    killed(lambda: go(flow), at="note")
    go(flow)

    assert did.all == ["raising"]
    (error,) = seen
    assert isinstance(error, StepFailedError | ExceptionGroup)
    assert "two" in str(error)


def test_an_exception_whose_str_raises_is_logged(did: Effects) -> None:
    class Evil(Exception):  # noqa: N818 - it is
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @step
    def work() -> str:
        if did("work") == 1:
            raise Evil
        return "done"

    @workflow
    def flow() -> str:
        return work()

    with pytest.raises(Evil):
        go(flow)
    assert history("r").status == "failed"
    assert go(flow) == "done"


def test_a_gathered_failure_that_is_a_value_was_handled(did: Effects) -> None:
    """return_exceptions=True, then an ordered call: the failure stays."""

    @step
    async def bad() -> None:
        did("bad")
        raise ValueError("bad")

    @step
    async def good() -> str:
        did("good")
        return "good"

    @step
    async def note() -> None:
        die_at("note")

    @workflow
    async def flow() -> list[str]:
        got = await asyncio.gather(bad(), good(), return_exceptions=True)
        await note()
        return [str(one) for one in got]

    killed(lambda: go(flow), at="note")

    assert go(flow) == ["bad", "good"]
    assert sorted(did.all) == ["bad", "good"]


def test_a_wrapped_failure_has_passed_through(did: Effects) -> None:
    """An outer step that raises its own exception *from* an inner step's keeps what is done."""

    @step
    def done() -> None:
        did("done")

    @step
    def flaky() -> None:
        if did("flaky") == 1:
            raise ValueError("inside")

    @step(retries=1, backoff=QUICK)
    def outer() -> None:
        done()
        try:
            flaky()
        except ValueError as error:
            raise RuntimeError("wrapped") from error

    @workflow
    def flow() -> None:
        outer()

    go(flow)
    assert did.all == ["done", "flaky", "flaky"]


def test_an_exception_with_an_unreadable_attribute_is_logged() -> None:
    class Evil:
        @property
        def __class__(self) -> Any:
            raise ZeroDivisionError

        @__class__.setter
        def __class__(self, _: Any) -> None: ...

    @step
    def work() -> None:
        error = ValueError("original")
        error.evil = Evil()  # type: ignore[attr-defined]
        raise error

    @workflow
    def flow() -> None:
        work()

    with pytest.raises(ValueError, match="original"):
        go(flow)
    assert [one.status for one in history("r").steps] == ["failed"]
