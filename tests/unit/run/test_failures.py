"""Failures that are raised again from the log: the same to any handler, or a refusal.

Each case is a step that fails, and a handler that looks at the failure. It runs without a crash,
and again in a process that is killed after it and resumed in another: both see the same.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.error
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crashes import Effects, die_at, go, in_child, killed
from effort import examples
from handled_failures import both, handling
from logs import forge
from tapps_otel import history, step, workflow
from tapps_otel.errors import FailureDetailError, StepFailedError
from tapps_otel.redact import NO_RULES
from tapps_otel.run import failures
from tapps_otel.run.resolving import resolve

Log = Callable[..., list[dict[str, Any]]]


class Colour(Enum):
    RED = "red"
    ROUND = (1, 2)


@dataclass
class Address:
    street: str
    since: datetime


class Rejected(Exception):  # noqa: N818 - it is what it is
    """Has a constructor of its own, and attributes of many kinds."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"rejected {code}")
        self.code = code
        self.at = datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC)
        self.body = b"\x00\xff"
        self.price = Decimal("1.50")
        self.colours = (Colour.RED, Colour.ROUND)
        self.tags = {"a", "b"}
        self.address = Address("here", self.at)
        self.by_number = {1: "one", "$class": 2}
        self.none = None
        self.id = uuid.UUID(int=7)
        self.file = Path("a/b")
        self.far = float("inf")


class Slotted(Exception):  # noqa: N818
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(f"slotted {code}")
        self.code = code


class Told(Exception):  # noqa: N818
    """Its text is made of something that no log can keep."""

    def __init__(self, handle: object) -> None:
        super().__init__(handle)
        self.handle = handle
        self.code = 4

    def __str__(self) -> str:
        return f"told by {type(self.handle).__name__}"


class Missing(KeyError, FileNotFoundError):  # noqa: N818
    """Only the second of its bases can make it."""


class Mine(ExceptionGroup[Exception]):
    """A group of a class of its own."""


class Model(pydantic.BaseModel):
    number: int
    even: int = 0

    @pydantic.field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            msg = "must be even"
            raise ValueError(msg)
        return value


def _rejected() -> None:
    raise Rejected(code=3)


def _slotted() -> None:
    raise Slotted(5)


def _caused() -> None:
    try:
        raise Rejected(code=3)
    except Rejected as error:
        raise RuntimeError("wrapped") from error


def _in_context() -> None:
    try:
        _caused()
    except RuntimeError:
        raise KeyError("k")  # noqa: B904


def _from_none() -> None:
    try:
        _caused()
    except RuntimeError:
        raise KeyError("k") from None


def _noted() -> None:
    error = ValueError("v")
    error.add_note("first")
    error.add_note("second")
    raise error


def _grouped() -> None:
    inner = Mine("inner", [TypeError("t"), Rejected(code=1)])
    inner.__cause__ = OSError(2, "none", "/x")
    raise ExceptionGroup("outer", [ValueError("v"), inner])


def _base_group() -> None:
    raise BaseExceptionGroup("base", [KeyboardInterrupt(), ValueError("v")])


def _cyclic() -> None:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    one.other = two  # type: ignore[attr-defined]
    raise one


def _holding() -> None:
    raise urllib.error.URLError(ConnectionRefusedError(111, "refused"))


def _decoded() -> None:
    b"\xff".decode()


def _encoded() -> None:
    "\ud800".encode()


def _parsed() -> None:
    json.loads("{")


def _called() -> None:
    raise subprocess.CalledProcessError(3, ["make", "all"], b"out\xff", b"err")


def _timed_out() -> None:
    raise subprocess.TimeoutExpired("make", 3.5, b"out")


def _validated() -> None:
    Model.model_validate({"number": "x", "even": 3})


def _missing() -> None:
    None.foo  # type: ignore[attr-defined]  # noqa: B018


def _status() -> None:
    error = OSError("x")
    error.status = HTTPStatus.NOT_FOUND  # type: ignore[attr-defined]
    raise error


BODIES = [
    _rejected, _slotted, _caused, _in_context, _from_none, _noted, _grouped, _base_group, _cyclic,
    _holding, _decoded, _encoded, _parsed, _called, _timed_out, _validated, _missing, _status,
]  # fmt: skip


def facts(error: BaseException | None, seen: tuple[int, ...] = ()) -> Any:
    """What a handler can see of an exception."""
    if error is None:
        return None
    if id(error) in seen:
        return seen.index(id(error))
    seen = (*seen, id(error))

    def value(one: Any) -> Any:
        if isinstance(one, BaseException):
            return facts(one, seen)
        if isinstance(one, (list, tuple)):
            return type(one).__name__, [value(part) for part in one]
        if isinstance(one, dict):
            return [(key, value(part)) for key, part in one.items()]
        return type(one).__name__, repr(sorted(one) if isinstance(one, set) else one)

    names = {*vars(error), *getattr(type(error), "__slots__", ())} - {"_tapps_left"}
    for name in ("start", "end", "object", "reason", "encoding", "errno", "filename", "name"):
        if hasattr(error, name):
            names.add(name)
    return {
        "class": f"{type(error).__module__}.{type(error).__qualname__}",
        "text": str(error),
        "args": value(error.args),
        "values": {name: value(getattr(error, name, None)) for name in sorted(names)},
        "errors": value(error.errors()) if isinstance(error, pydantic.ValidationError) else None,
        "members": [facts(one, seen) for one in getattr(error, "exceptions", ())],
        "cause": facts(error.__cause__, seen),
        "context": facts(error.__context__, seen),
        "suppressed": error.__suppress_context__,
    }


@pytest.mark.parametrize("body", BODIES)
def test_a_handler_sees_the_same_after_a_crash(body: Callable[[], None]) -> None:
    uncrashed, resumed = both(handling(body, facts))

    assert resumed == uncrashed


def test_a_failure_in_a_handler_keeps_its_own_context() -> None:
    @step
    def failing() -> None:
        try:
            raise TypeError("its own")
        except TypeError:
            raise ValueError("v")  # noqa: B904

    @step
    def after() -> None:
        die_at("after")

    seen = []

    @workflow
    def flow() -> None:
        found = None
        try:
            raise KeyError("of the workflow")
        except KeyError:
            try:
                failing()
            except ValueError as error:
                found = facts(error)
        after()
        seen.append(found)

    go(flow, workflow_id="uncrashed")
    killed(lambda: go(flow), at="after")
    go(flow)

    assert seen[0] == seen[1]
    assert "of the workflow" in str(seen[1])


def test_except_star_around_a_task_group_takes_the_same_branch(did: Effects) -> None:
    @step
    async def group() -> None:
        did("group")

        async def bad(error: Exception) -> None:
            raise error

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bad(ValueError("v")))
            tasks.create_task(bad(Rejected(code=7)))

    @step
    async def note(what: str) -> None:
        did(what)

    @step
    async def after() -> None:
        die_at("after")

    @workflow
    async def flow() -> None:
        try:
            await group()
        except* ValueError as found:
            await note(f"values {len(found.exceptions)}")
        except* Rejected as found:
            await note(f"rejected {found.exceptions[0].code}")  # type: ignore[union-attr]
        await after()

    killed(lambda: go(flow), at="after")
    go(flow)

    assert did.all == ["group", "values 1", "rejected 7"]


def _told() -> None:
    raise Told(object())


@pytest.mark.parametrize(
    ("body", "kind", "name"),
    [
        (_told, Told, "handle"),
        (_told, Told, "args"),
    ],
)
def test_reading_what_was_not_kept_is_refused(
    did: Effects, log: Log, body: Callable[[], None], kind: type, name: str
) -> None:
    def look(error: BaseException) -> Any:
        assert isinstance(error, kind)
        found = str(error), type(error).__name__, error.__class__ is kind
        if did("look") in {2, 3}:
            try:
                getattr(error, name, None)
            except Exception:  # noqa: BLE001 - it swallows what it can
                did("swallowed")
        return found

    flow = handling(body, look)
    killed(lambda: go(flow), at="after")
    assert name in log("step_fail")[0]["error"]["lost"]

    for _ in range(2):  # the step does not run again by itself
        with pytest.raises(FailureDetailError, match=r"resolve r failing --rerun") as refused:
            go(flow)
        assert refused.value.detail == name
        assert history("r").by_id["failing"].handled
    assert len(history("r").by_id["failing"].attempts) == 1

    resolve("r", "failing")
    go(flow)
    assert history("r").status == "completed"
    assert len(history("r").by_id["failing"].attempts) == 2


def test_what_was_not_kept_may_be_left_alone() -> None:
    def look(error: BaseException) -> Any:
        text = str(error)
        error.handle = 5  # type: ignore[attr-defined]
        return text, error.code, error.handle  # type: ignore[attr-defined]

    uncrashed, resumed = both(handling(_told, look))

    assert resumed == uncrashed == ("told by object", 4, 5)


def test_a_refusal_inside_a_step_keeps_what_is_done_there(did: Effects) -> None:
    @step
    def charge() -> None:
        did("charge")

    @step
    def failing() -> None:
        did("failing")
        _told()

    @step
    def after() -> None:
        die_at("after")

    @step
    def outer() -> None:
        charge()
        try:
            failing()
        except Told as error:
            if did("look") in {2, 3}:
                _ = error.handle
        after()

    @workflow
    def flow() -> None:
        outer()

    killed(lambda: go(flow), at="after")
    for _ in range(2):
        with pytest.raises(FailureDetailError):
            go(flow)
    resolve("r", "outer/failing")
    go(flow)
    assert did.count("charge") == 1
    assert did.count("failing") == 2


def test_an_exception_that_cannot_be_made_is_refused() -> None:
    def body() -> None:
        Model.model_validate({"number": object()})

    flow = handling(body, lambda error: type(error).__name__)
    killed(lambda: go(flow), at="after")
    with pytest.raises(FailureDetailError, match="object of class object"):
        go(flow)


@pytest.mark.slow
def test_a_deep_or_large_failure_fits_into_its_event(log: Log) -> None:
    def body() -> None:
        errors: list[Exception] = [ValueError("\ud800é" * 20_000, "é" * 100_000) for _ in range(60)]
        for one, other in pairwise(errors):
            one.__cause__ = other
        errors[0].all = errors  # type: ignore[attr-defined]
        raise ExceptionGroup("many", [errors[0], *(KeyError(n) for n in range(5_000))])

    flow = handling(body, lambda error: type(error).__name__)
    killed(lambda: go(flow), at="after")

    (event,) = log("step_fail")
    assert event["error"]["type"] == "ExceptionGroup"
    with pytest.raises(FailureDetailError, match="more than an event"):
        go(flow)


def test_an_event_without_more_to_keep_has_no_more_fields(log: Log) -> None:
    flow = handling(_noted, str)
    go(flow)
    assert list(log("step_fail")[0]["error"]) == ["type", "message", "stack", "notes", "args"]

    @step
    def plain() -> None:
        raise ValueError

    @workflow
    def simple() -> None:
        plain()

    with pytest.raises(ValueError):
        go(simple, workflow_id="s")
    assert list(log("step_fail", "s")[0]["error"]) == ["type", "message", "stack"]


def test_a_failure_of_an_older_log_is_read() -> None:
    old = {
        "type": "FileNotFoundError", "message": "[Errno 2] none: '/x'", "stack": "",
        "args": [2, "none"], "attributes": {"errno": 2, "strerror": "none", "filename": "/x"},
    }  # fmt: skip

    error = failures.rebuild(old, _refuse)

    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename, str(error)) == (2, "/x", old["message"])


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "asyncio.exceptions.CancelledError"])
def test_a_made_up_log_does_not_end_the_program_or_its_task(
    kind: str, log: Log, log_dir: Path
) -> None:
    """A step that ends by one of these runs again: a real log has none that was handled."""
    flow = handling(_rejected, lambda error: (type(error), str(error)))
    killed(lambda: go(flow), at="after")
    events = [{name: one[name] for name in one if name != "sha"} for one in log()]
    for one in events:
        if one["event_type"] == "step_fail":
            one["error"] = {"type": kind, "message": "now", "args": ["now"]}
    forge(log_dir, "r", events)
    go(flow)

    assert flow.seen == [(StepFailedError, f"{kind}: now")]


def test_no_class_is_imported_or_made_because_a_log_names_it() -> None:
    for name in ("subprocess.Popen", "wave.Error", "os.PathLike"):
        bad = {"$class": name, "$value": ["true"]}
        error = {"type": "ValueError", "message": "v", "args": ["v"], "attributes": {"x": bad}}
        rebuilt: Any = failures.rebuild(error, _refuse)
        with pytest.raises(RuntimeError, match="no class"):
            _ = rebuilt.x


def _refuse(name: str, reason: str) -> Any:
    raise RuntimeError(f"{name}: {reason}")


# ---------------------------------------------------------------- generated

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False),
    st.text(max_size=8), st.binary(max_size=8), st.decimals(allow_nan=False), st.uuids(),
    st.datetimes(), st.dates(), st.timedeltas(), st.sampled_from(Colour),
    st.builds(Address, st.text(max_size=3), st.datetimes()),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3) | st.sampled_from(["$class", "$error"]), inner),
    ),
    max_leaves=5,
)


@st.composite
def exceptions(draw: st.DrawFn, depth: int = 2) -> Exception:
    """An exception with parts that are exceptions in their turn."""
    kinds: list[Callable[[], Exception]] = [
        lambda: ValueError(*draw(st.lists(VALUES, max_size=2))),
        lambda: KeyError(draw(VALUES)),
        lambda: OSError(draw(st.integers(1, 40)), draw(st.text(max_size=5)), "/x"),
        lambda: Rejected(code=draw(st.integers())),
        lambda: Slotted(draw(st.integers())),
    ]
    if depth:
        kinds.append(
            lambda: ExceptionGroup(
                draw(st.text()), draw(st.lists(exceptions(depth - 1), min_size=1, max_size=3))
            )
        )
    error = draw(st.sampled_from(kinds))()
    if draw(st.booleans()):
        error.extra = draw(VALUES)  # type: ignore[attr-defined]
    for note in draw(st.lists(st.text(max_size=5), max_size=2)):
        error.add_note(note)
    if depth and draw(st.booleans()):
        error.__context__ = draw(exceptions(depth - 1))
    if depth and draw(st.booleans()):
        error.__cause__ = error.__context__ or draw(exceptions(depth - 1))
    error.__suppress_context__ = draw(st.booleans())
    return error


@given(exceptions())
@hypothesis_settings(
    max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck)
)
def test_any_exception_comes_back_the_same(error: Exception) -> None:
    written = json.loads(json.dumps(failures.describe(error, NO_RULES)))

    assert facts(failures.rebuild(written, _refuse)) == facts(error)


def test_generated_exceptions_are_the_same_in_another_process() -> None:
    """The log is read where nothing but it knows of the exception."""
    flow = handling(_grouped, facts)
    killed(lambda: go(flow), at="after")

    def resumed() -> Any:
        go(flow)
        return flow.seen

    outcome = in_child(resumed)
    assert outcome.value == [facts(_raised(_grouped))]


def _raised(body: Callable[[], None]) -> BaseException:
    try:
        body()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def test_a_cause_that_cannot_be_made_is_refused_when_it_is_read() -> None:
    def body() -> None:
        try:
            Model.model_validate({"number": object()})
        except pydantic.ValidationError as error:
            raise RuntimeError("wrapped") from error

    flow = handling(body, str)
    killed(lambda: go(flow), at="after")
    go(flow)
    assert flow.seen == ["wrapped"]

    killed(lambda: go(flow, workflow_id="s"), at="after")
    with pytest.raises(FailureDetailError, match="'__cause__' of the RuntimeError"):
        go(handling(body, lambda error: error.__cause__), workflow_id="s")


def test_what_is_added_to_a_validation_error_is_kept_or_refused() -> None:
    def adding(value: object) -> Callable[[], None]:
        def body() -> None:
            try:
                Model.model_validate({"number": "x"})
            except pydantic.ValidationError as error:
                error.own = value  # type: ignore[attr-defined]
                raise

        return body

    uncrashed, resumed = both(handling(adding(5), facts))
    assert resumed == uncrashed

    flow = handling(adding(object()), str)
    killed(lambda: go(flow, workflow_id="s"), at="after")
    with pytest.raises(FailureDetailError, match=r"'own' of the .*ValidationError"):
        go(flow, workflow_id="s")


def test_what_is_wrong_is_kept_of_a_validation_error_without_links(log: Log) -> None:
    go(handling(lambda: Model.model_validate({"number": "x"}), str))

    (event,) = log("step_fail")
    assert "int_parsing" in json.dumps(event["error"]["state"])
    assert "https://" not in json.dumps(event["error"]["state"])


def test_a_slot_that_holds_none_is_kept() -> None:
    def body() -> None:
        error = Slotted(3)
        error.code = None  # type: ignore[assignment]
        raise error

    uncrashed, resumed = both(handling(body, lambda error: error.code))
    assert resumed is uncrashed is None


def test_the_attributes_of_a_failure_are_listed_or_refused() -> None:
    """Where one is lost, nothing says that there was none."""
    uncrashed, resumed = both(handling(_rejected, lambda error: sorted(vars(error))))
    assert resumed == uncrashed

    flow = handling(_told, lambda error: sorted(vars(error)))
    killed(lambda: go(flow, workflow_id="s"), at="after")
    with pytest.raises(FailureDetailError, match="'__dict__' of the"):
        go(flow, workflow_id="s")


def test_the_attributes_are_listed_where_the_arguments_alone_are_lost() -> None:
    def body() -> None:
        raise ValueError(object())

    uncrashed, resumed = both(handling(body, lambda error: sorted(vars(error))))
    assert resumed == uncrashed


def test_a_class_with_two_bases_in_c_is_made_again() -> None:
    def body() -> None:
        raise Missing(2, "none", "/x")

    uncrashed, resumed = both(handling(body, facts))
    assert resumed == uncrashed
