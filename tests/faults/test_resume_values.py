"""Values in a run that was killed and resumed, and in one that was not: the two are compared.

Each value is a workflow's input, a step's result and a step's argument. Either the resumed run has
what the uncrashed one had, to the last private attribute, or the first run refused it by a named
error. What the two have is told apart by :func:`describe`, which uses nothing of the library.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import re
import tempfile
import typing as t
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    computed_field,
    field_validator,
)

from crashes import Outcome, go, in_child, killed
from effort import examples, sample
from tapps_otel import configure, step, workflow
from tapps_otel.errors import FailureDetailError, ValueNotStoredError, WorkflowInputError

BERLIN = ZoneInfo("Europe/Berlin")
T = t.TypeVar("T")


# ---------------------------------------------------------------- what is tried


class Aliased(BaseModel):
    x: int = Field(alias="ex")
    note: str | None = Field(None, alias="remark")


class Twin(BaseModel):
    x: int = Field(alias="ex")
    note: str | None = Field(None, alias="remark")


class Longer(Aliased):
    y: int = 0


class Validated(BaseModel):
    when: dt.datetime
    _secret: int = PrivateAttr(3)

    @field_validator("when")
    @classmethod
    def _later(cls, when: dt.datetime) -> dt.datetime:
        return when + dt.timedelta(days=1)


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int

    @computed_field
    def double(self) -> int:
        return self.a * 2


class Guarded(BaseModel):
    user: str
    token: SecretStr


class Excluded(BaseModel):
    a: int
    b: int = Field(1, exclude=True)


@dataclass
class Base:
    a: int


@dataclass
class Derived(Base):
    b: int = 2


@dataclass
class Prepared:
    name: str
    times: InitVar[int] = 2
    loud: str = field(init=False)

    def __post_init__(self, times: int) -> None:
        self.loud = self.name * times
        self.name += "!"


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: tuple[int, ...] = ()


@dataclass
class Box(t.Generic[T]):
    item: T


@attrs.define
class Point:
    x: int
    _y: int = attrs.field(default=0, alias="y")


class Color(enum.Enum):
    RED = "r"
    BLUE = (1, 2)


class Level(enum.IntEnum):
    ONE = 1


class Named(t.NamedTuple):
    a: int
    b: Base | None = None


class Freer(Named):
    """Has room for attributes, which a tuple has not."""


class Slots:
    __slots__ = ("_seen",)


@dataclass
class WithSlot(Slots):
    """Its base has a slot that is no field."""

    x: int


@attrs.define(unsafe_hash=True, cache_hash=True)
class Hashed:
    x: str


def with_attribute(value: t.Any, name: str) -> t.Any:
    setattr(value, name, 5)
    return value


def hashed(x: str) -> Hashed:
    made = Hashed(x)
    hash(made)
    return made


def validated() -> Validated:
    made = Validated(when=dt.datetime(2026, 1, 1, tzinfo=BERLIN))
    made._secret = 7
    return made


# ---------------------------------------------------------------- how it is tried


def describe(value: t.Any) -> str:  # noqa: PLR0911 - one for each kind
    """A value, its class, and all that it holds."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return f"{kind.__qualname__}.{value.name}"
    if isinstance(value, (set, frozenset)):
        return f"{kind.__qualname__}{sorted(describe(one) for one in value)}"
    if isinstance(value, dict):
        items = [(describe(key), describe(one)) for key, one in value.items()]
        return f"{kind.__qualname__}{items}{getattr(value, 'default_factory', None)}"
    if isinstance(value, (list, tuple, deque)):
        return f"{kind.__qualname__}{[describe(one) for one in value]}{_bound(value)}"
    if isinstance(value, SecretStr):
        return f"SecretStr({value.get_secret_value()!r})"
    names = [*getattr(value, "__dict__", {}), *_slots(kind)]
    if kind.__module__ == __name__ and names:
        state = {name: describe(getattr(value, name, "unset")) for name in sorted(set(names))}
        return f"{kind.__qualname__}{state}{getattr(value, '__pydantic_private__', None)}"
    return f"{kind.__qualname__}:{value!r}"


def _bound(value: t.Any) -> str:
    return f" of {value.maxlen}" if isinstance(value, deque) else ""


def _slots(kind: type) -> list[str]:
    return [
        name
        for base in kind.__mro__
        for name in getattr(base, "__slots__", ())
        if not name.startswith("__")
    ]


@dataclass
class Call:
    """A step of a plan: it gives a value, and another step is given that.

    :ivar shown: whether the second step has the value's annotation too
    :ivar raised: instead, the step raises an exception with the value, and the other step is given
        what a handler finds in that
    :ivar key: the calls have one
    """

    annotation: t.Any
    value: t.Any
    shown: bool = True
    raised: bool = False
    key: str | None = None


class Failed(Exception):  # noqa: N818 - it is what it is
    def __init__(self, value: t.Any) -> None:
        super().__init__("failed")
        self.value = value


def raise_with(value: t.Any) -> None:
    """Raise a group whose members have causes that hold the value."""
    first, second = Failed(value), KeyError(value)
    first.__cause__ = ValueError(value)
    second.__context__ = Failed([value])
    raise ExceptionGroup("two", [first, second])


def found_in(error: BaseException | None) -> str:
    """What a handler finds: the classes, the values, and where they are."""
    if error is None:
        return "nothing"
    parts = [type(error).__name__, *map(describe, error.args), describe(vars(error).get("value"))]
    parts += [found_in(one) for one in (error.__cause__, error.__context__)]
    parts += [found_in(one) for one in getattr(error, "exceptions", ())]
    return "/".join(parts)


def annotated(fn: Callable[..., t.Any], **hints: t.Any) -> Callable[..., t.Any]:
    fn.__annotations__ = hints
    return fn


def make_flow(calls: list[Call], inputs: list[Call]) -> t.Any:
    """A workflow that has these inputs, makes these values, and tells what it had."""

    def flow(*given: t.Any) -> list[str]:
        told = [describe(one) for one in given]
        for number, call in enumerate(calls):
            value: t.Any = None
            if call.raised:
                try:
                    fail(number, call)()
                except* Exception as group:  # noqa: BLE001 - any
                    value = found_in(group)
            else:
                value = make(number, call)()
            told += [describe(value), use(call)(number, value)]
        return told

    # A function of as many parameters, each with an annotation of its own.
    names = [f"p{number}" for number in range(len(inputs))]
    space: dict[str, t.Any] = {"flow": flow}
    exec(f"def outer({', '.join(names)}):\n    return flow({', '.join(names)})", space, space)
    hints = {name: call.annotation for name, call in zip(names, inputs, strict=True)}
    return workflow(name="flow")(annotated(space["outer"], **hints, **{"return": list[str]}))


def make(number: int, call: Call) -> t.Any:
    named = step(name=f"make{number}", key=call.key)
    return named(annotated(lambda: call.value, **{"return": call.annotation}))


def fail(number: int, call: Call) -> t.Any:
    return step(name=f"fail{number}", key=call.key)(lambda: raise_with(call.value))


def use(call: Call) -> t.Any:
    def fn(number: int, value: t.Any) -> str:
        return describe(value)

    hints = {"value": call.annotation} if call.shown and not call.raised else {}
    return step(name="use", key=call.key and f"use {call.key}")(
        annotated(fn, number=int, **hints, **{"return": str})
    )


def run(flow: t.Any, values: list[t.Any], workflow_id: str) -> Outcome:
    """Run it in a child process; how that ended, with what it told or the name of a refusal."""

    def call() -> tuple[str, t.Any]:
        try:
            return "told", flow.options(workflow_id=workflow_id)(*values)
        except (ValueNotStoredError, FailureDetailError) as error:
            return type(error).__name__, str(error)

    return in_child(call)


def resume(flow: t.Any, workflow_id: str) -> Outcome:
    """Resume it in a child process by its id alone."""

    def call() -> tuple[str, t.Any]:
        try:
            return "told", flow.resume(workflow_id)
        except FailureDetailError as error:
            return type(error).__name__, str(error)

    return in_child(call)


def compare(
    flow: t.Any, values: list[t.Any], ends: t.Iterable[int], *, lossy: bool = False
) -> t.Any:
    """What the uncrashed run told, which resumed runs must tell too; or its refusal.

    :param lossy: failures hold what cannot be kept: a resumed run may be refused
    """
    whole = run(flow, values, "whole")
    assert whole.code == 0, whole.error
    kind, told = whole.value
    if kind != "told":
        return whole.value
    for end in ends:
        name = f"killed{end}"
        killed(functools.partial(go, flow, *values, workflow_id=name), finished=end)
        resumed = resume(flow, name)
        assert resumed.code == 0, resumed.error
        if resumed.value[0] == FailureDetailError.__name__:
            assert lossy, resumed.value[1]  # what a handler reads again was not kept
            continue
        assert resumed.value == ("told", told), f"killed after step {end}"
        # Under its id, with its inputs, the log answers.
        assert run(flow, values, name).value == ("told", told)
    return whole.value


@pytest.fixture
def _logs(tmp_path: Path) -> None:
    configure(log_dir=tmp_path / "logs", durability="os", spans=False)


STORED: list[tuple[t.Any, t.Any]] = [
    (Aliased, Aliased(ex=1)),
    (Aliased, Aliased(ex=1, remark="a")),
    (Aliased, Longer(ex=1, y=5)),
    (Aliased | Twin, Twin(ex=1)),
    (Twin | Aliased, Longer(ex=1, remark="b")),
    (Base, Derived(1, 3)),
    (list[Base], [Base(1), Derived(2, 4)]),
    (Prepared, Prepared("a")),
    (Prepared, Prepared("a", times=3)),
    (Validated, validated()),
    (Computed, Computed(a=2)),
    (Point, Point(1, y=2)),
    (Frozen, Frozen(1, (2, 3))),
    (Box[Aliased | Twin], Box(Twin(ex=3))),
    (Named, Named(1, Derived(2))),
    (WithSlot, with_attribute(WithSlot(1), "_seen")),
    (set[Hashed], {hashed("a")}),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET"))),
    (dt.time, dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=-3), "home"))),
    (dict[Color, int], {Color.BLUE: 1, Color.RED: 2}),
    (dict[tuple[int, str], int], {(1, "a"): 1}),
    (dict[dt.date, int], {dt.date(2026, 1, 1): 1}),
    (dict[int | None, str], {None: "a", 1: "b"}),
    (deque[int], deque([1, 2], maxlen=3)),
    (defaultdict[str, list[int]], defaultdict(list, a=[1])),
    (OrderedDict[str, int], OrderedDict(b=1, a=2)),
    (re.Pattern[str], re.compile("a", re.IGNORECASE | re.MULTILINE)),
    (ZoneInfo, BERLIN),
    (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)),
    (set[Frozen], {Frozen(1), Frozen(2)}),
    (tuple[int, ...] | list[int], (1,)),
    (str | dt.date, "2026-01-01"),
    (t.Any, {"a": [1, None, "b"]}),
]


@pytest.mark.usefixtures("_logs")
@pytest.mark.parametrize(
    ("annotation", "value"),
    sample(STORED, 12),
    ids=[f"{n}-{one}"[:40] for n, (one, _) in enumerate(STORED)],
)
def test_a_value_is_the_same_after_a_crash(annotation: t.Any, value: t.Any) -> None:
    call = Call(annotation, value)
    kind, told = compare(make_flow([call], [call]), [value], ends=[1, 2])

    assert (kind, told) == ("told", [describe(value)] * 3)


# Each with what its refusal names, as a result and as an input.
REFUSED: list[tuple[t.Any, t.Any, str]] = [
    (SecretStr, SecretStr("a"), "a secret is not written into a log"),
    (Guarded, Guarded(user="ann", token=SecretStr("a")), r"Guarded\.token"),
    (Excluded, Excluded(a=1, b=5), r"Excluded\.b is excluded"),
    (dict[str, t.Any], {"a": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}, r"\$(\.p0)?\.a"),
    (dict[str, t.Any], {"a": (1, 2)}, r"\$(\.p0)?\.a: tuple is not a JSON value"),
    (t.Any, Aliased(ex=1), r"Aliased is not a JSON value"),
    (list[t.Any], [Color.RED], r"\[0\]: .*Color is not a JSON value"),
    (list[int], [1, "a"], r"\[1\]: str does not match its annotation"),
    (Freer, with_attribute(Freer(1), "more"), "Freer with attributes of its own: more"),
    (OrderedDict[str, int], with_attribute(OrderedDict(a=1), "more"), "attributes of its own"),
]
IDS = [str(one)[:40] for one, _, _ in REFUSED]


@pytest.mark.usefixtures("_logs")
@pytest.mark.parametrize(("annotation", "value", "names"), REFUSED, ids=IDS)
def test_a_result_that_would_come_back_different_is_refused(
    annotation: t.Any, value: t.Any, names: str
) -> None:
    kind, message = compare(make_flow([Call(annotation, value)], []), [], ends=[])

    assert kind == "StepResultError"
    assert re.search(names, message)


@pytest.mark.usefixtures("_logs")
@pytest.mark.parametrize(("annotation", "value", "names"), REFUSED, ids=IDS)
def test_an_input_that_would_come_back_different_is_refused(
    annotation: t.Any, value: t.Any, names: str
) -> None:
    kind, message = compare(make_flow([], [Call(annotation, value)]), [value], ends=[])

    assert kind == WorkflowInputError.__name__
    assert re.search(names, message)
    assert 'ignore=("p0",)' in message


# ---------------------------------------------------------------- any values

Pair = tuple[t.Any, st.SearchStrategy[t.Any]]
SCALARS: list[Pair] = [
    (str, st.text(max_size=5)),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary(max_size=5)),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=st.sampled_from([dt.UTC, BERLIN]) | st.none())),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Base, st.builds(Base, st.integers()) | st.builds(Derived, st.integers(), st.integers())),
    (Aliased, st.builds(Aliased, ex=st.integers()) | st.builds(Longer, ex=st.integers())),
    (Twin, st.builds(Twin, ex=st.integers(), remark=st.none() | st.text(max_size=3))),
    (Prepared, st.builds(Prepared, st.text(max_size=3), st.integers(0, 3))),
    (Frozen, st.builds(Frozen, st.integers(), st.lists(st.integers(), max_size=2).map(tuple))),
    (Point, st.builds(Point, st.integers(), st.integers())),
    (Computed, st.builds(Computed, a=st.integers())),
    (SecretStr, st.text(max_size=3).map(SecretStr)),
    (Guarded, st.builds(Guarded, user=st.just("ann"), token=st.text(max_size=3).map(SecretStr))),
    (t.Any, st.none() | st.dates() | st.lists(st.integers(), max_size=2) | st.just((1,))),
]
KEYS = [pair for pair in SCALARS if pair[0] in {str, int, dt.date, Color, uuid.UUID, Frozen, None}]


@st.composite
def pairs(draw: st.DrawFn, depth: int = 2) -> Pair:  # noqa: PLR0911 - one for each shape
    """An annotation, and a strategy for its values."""
    shape = draw(st.sampled_from(["scalar", "list", "tuple", "dict", "union", "box", "set"]))
    if depth == 0 or shape == "scalar":
        return draw(st.sampled_from(SCALARS))
    if shape == "set":
        annotation, values = draw(st.sampled_from(KEYS))
        return set[annotation], st.sets(values, max_size=3)  # type: ignore[valid-type]
    annotation, values = draw(pairs(depth - 1))
    if shape == "list":
        return list[annotation], st.lists(values, max_size=3)  # type: ignore[valid-type]
    if shape == "box":
        return Box[annotation], st.builds(Box, values)  # type: ignore[valid-type]
    if shape == "dict":
        key, keys = draw(st.sampled_from(KEYS))
        return dict[key, annotation], st.dictionaries(keys, values, max_size=3)  # type: ignore[valid-type]
    other, others = draw(pairs(depth - 1))
    if shape == "tuple":
        return tuple[annotation, other], st.tuples(values, others)  # type: ignore[valid-type]
    return t.Union[annotation, other], values | others  # noqa: UP007 - of what is drawn


@st.composite
def calls(draw: st.DrawFn) -> Call:
    annotation, values = draw(pairs())
    key = draw(st.none() | st.uuids().map(str))
    raised = draw(st.integers(0, 2)) == 0
    return Call(annotation, draw(values), shown=draw(st.booleans()), raised=raised, key=key)


@pytest.mark.slow
@settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(calls(), min_size=1, max_size=3), st.lists(calls(), max_size=2))
def test_a_random_workflow_killed_after_every_step(steps: list[Call], inputs: list[Call]) -> None:
    note(f"{steps} {inputs}")
    values = [call.value for call in inputs]
    with tempfile.TemporaryDirectory() as folder:
        configure(log_dir=Path(folder), durability="os", spans=False)
        raised = any(call.raised for call in steps)
        ends = sum(1 if call.raised else 2 for call in steps)
        compare(make_flow(steps, inputs), values, range(1, ends + 1), lossy=raised)


def test_what_describes_values_tells_them_apart() -> None:
    """The tests above are worth what it sees."""
    different = [
        Aliased(ex=1), Longer(ex=1), Twin(ex=1), Base(1), Derived(1), Prepared("a"), validated(),
        dataclasses.replace(Derived(1), b=3), Prepared("a", times=3), Frozen(1), Frozen(2),
        Point(1), Point(1, y=2), deque([1]), deque([1], maxlen=2), [1], (1,), {1}, {1: 1}, {"1": 1},
        Color.RED, "r", 1, True, 1.0, Level.ONE, re.compile("a"), re.compile("a", re.IGNORECASE),
        SecretStr("a"), SecretStr("b"), defaultdict(list), defaultdict(int), OrderedDict(),
    ]  # fmt: skip
    assert len({describe(one) for one in different}) == len(different)
