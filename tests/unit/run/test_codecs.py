"""Values come back equal and of the same class, or are refused where they are written."""

from __future__ import annotations

import abc
import collections.abc as cabc
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import math
import re
import typing as t
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from types import GenericAlias
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_validator,
)

from tapps_otel import step, workflow
from tapps_otel.errors import StepInputError, WorkflowInputError
from tapps_otel.run.codecs.canonical import digest
from tapps_otel.run.codecs.codec import Codec, Fit
from tapps_otel.run.codecs.compiler import codec_of
from tapps_otel.run.codecs.faithful import Faithful
from tapps_otel.run.codecs.library import PydanticCodec
from tapps_otel.run.codecs.native import NotStorableError
from tapps_otel.run.codecs.registration import register_codec, unregister_codec


def write(codec: Codec, value: t.Any) -> bytes:
    return Faithful(codec).write(value)


def read(codec: Codec, data: bytes) -> t.Any:
    return Faithful(codec).read(data)


BERLIN = ZoneInfo("Europe/Berlin")
T = t.TypeVar("T")


class Aliased(BaseModel):
    x: int = Field(alias="ex")


class Twin(BaseModel):
    x: int = Field(alias="ex")


class Longer(Aliased):
    y: int = 0


@dataclass
class Base:
    a: int


@dataclass
class Derived(Base):
    b: int = 2


@dataclass
class Prepared:
    """Its fields are changed as it is made: they must not be changed again."""

    name: str
    times: InitVar[int] = 3
    loud: str = field(init=False)

    def __post_init__(self, times: int) -> None:
        self.loud = self.name * times
        self.name += "!"

    @cached_property
    def length(self) -> int:
        return len(self.name)


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: tuple[int, ...] = ()


@dataclass
class Box(t.Generic[T]):
    item: T


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...


@dataclass
class Circle(Shape):
    radius: float

    def area(self) -> float:
        return math.pi * self.radius**2


@attrs.define
class Point:
    x: int
    y: int = attrs.field(default=0)


class Shifted(BaseModel):
    model_config = ConfigDict(extra="allow")
    when: dt.datetime
    part: Base | Prepared | None = None
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


class Numbers(RootModel[list[int]]):
    pass


class Color(enum.Enum):
    RED = "r"
    BLUE = (1, 2)


class Word(str, enum.Enum):  # noqa: UP042 - as it was written before 3.11
    X = "x"


class Level(enum.IntEnum):
    ONE = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Named(t.NamedTuple):
    a: int
    b: Base | None = None


class Keys(t.TypedDict):
    a: int
    b: t.NotRequired[Base]


def shifted() -> Shifted:
    made = Shifted(when=dt.datetime(2026, 1, 1, tzinfo=BERLIN), part=Derived(1), more=[1])  # type: ignore[call-arg]
    made._secret = 7
    return made


STORED: list[tuple[t.Any, t.Any]] = [
    (Aliased, Aliased(ex=1)),
    (Aliased, Longer(ex=1, y=5)),
    (list[Aliased], [Aliased(ex=1), Longer(ex=2, y=3)]),
    (Aliased | Twin, Twin(ex=1)),
    (dict[str, Aliased | Twin], {"k": Twin(ex=1)}),
    (Prepared, Prepared("a")),
    (Base, Derived(1, 3)),
    (Tree, Tree(1, [Tree(2, [Tree(3)])])),
    (Frozen, Frozen(1, (1, 2))),
    (Box[int], Box(3)),
    (Box[Aliased | Twin], Box(Twin(ex=3))),
    (Shape, Circle(1.5)),
    (Point, Point(1, 2)),
    (Shifted, shifted()),
    (Computed, Computed(a=2)),
    (Numbers, Numbers([1, 2])),
    (Color, Color.BLUE),
    (Color | str, Color.RED),
    (Word, Word.X),
    (Level, Level.ONE),
    (Flags, Flags.A | Flags.B),
    (Named, Named(1, Derived(2))),
    (Keys, {"a": 1, "b": Derived(1)}),
    (dict[int, str], {1: "a"}),
    (dict[bool, str], {True: "a"}),
    (dict[dt.date, int], {dt.date(2026, 1, 1): 1}),
    (dict[tuple[int, int], str], {(1, 2): "x"}),
    (dict[Color, int], {Color.RED: 1}),
    (dict[str | None, int], {None: 1, "a": 2}),
    (deque[int], deque([1, 2], maxlen=3)),
    (defaultdict[str, int], defaultdict(int, a=1)),
    (OrderedDict[str, int], OrderedDict(b=1, a=2)),
    (Counter[str], Counter("aab")),
    (cabc.Sequence[int], (1, 2)),
    (cabc.Sequence[int], [1, 2]),
    (cabc.Iterable[Base], [Derived(1)]),
    (cabc.Mapping[str, int], {"a": 1}),
    (set[str], {"a", "b"}),
    (frozenset[int], frozenset({2, 1})),
    (re.Pattern, re.compile("a", re.IGNORECASE)),
    (re.Pattern[str], re.compile("a")),
    (re.Pattern[bytes], re.compile(b"\xff", re.DOTALL)),
    (ZoneInfo, BERLIN),
    (bytes, b"\xff\0"),
    (bytes | str, b"ab"),
    (str | bytes, "ab"),
    (bytearray, bytearray(b"ab")),
    (complex, 1 + 2j),
    (uuid.UUID, uuid.UUID(int=7)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (int | decimal.Decimal, decimal.Decimal(3)),
    (Path, Path("/a")),
    (str | Path, Path("a")),
    (str | Path, "a"),
    (str | dt.date, "2026-01-01"),
    (dt.date | dt.datetime, dt.datetime(2026, 1, 1)),  # noqa: DTZ001 - a naive one
    (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    (dt.time, dt.time(1, 2, tzinfo=BERLIN)),
    (dt.timedelta, dt.timedelta(days=3, microseconds=7)),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("127.0.0.1")),
    (int | float, 3),
    (int | float, 3.0),
    (t.Literal["a", 1], 1),
    (t.Literal[Color.RED], Color.RED),
    (list[Base] | None, [Derived(1)]),
    (list[Base] | dict[str, Base], {"a": Base(1)}),
    (tuple[int, ...] | list[int], (1,)),
    (list[int] | list[str], ["a"]),
    (tuple[()], ()),
    (t.TypeVar("T", bound=Base), Derived(1)),
    (t.Any, {"a": [1]}),
    (None, None),
    (t.Annotated[int, Field(gt=0)], 3),
    (t.Annotated[list[Base], "annotated"], [Derived(1)]),
    (t.Final[tuple[int, ...]], (1, 2)),
    (t.NewType("Bases", list[Base]), [Derived(1)]),
    (defaultdict[str, list[int]], defaultdict(list, a=[1])),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2), "CEST"))),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3)))),
    (dt.datetime, dt.datetime(2026, 1, 1, fold=1, tzinfo=dt.timezone(dt.timedelta(0), "WET"))),
    (dt.time, dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET"), fold=1)),
]


def classes(value: t.Any) -> t.Any:
    """The classes of a value and of what it holds, as far as they can be walked without help."""
    if isinstance(value, enum.Enum):
        return type(value)
    if isinstance(value, dict):
        return type(value), [(classes(key), classes(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return type(value), [classes(item) for item in value]
    return type(value), {
        name: classes(item) for name, item in getattr(value, "__dict__", {}).items()
    }


@pytest.mark.parametrize(
    ("annotation", "value"), STORED, ids=[f"{n}-{pair[0]}"[:40] for n, pair in enumerate(STORED)]
)
def test_a_stored_value_comes_back_the_same(annotation: t.Any, value: t.Any) -> None:
    codec = codec_of(annotation)
    back = read(codec, write(codec, value))

    assert back == value
    assert classes(back) == classes(value)
    for name in ("default_factory", "maxlen", "fold", "tzinfo"):
        assert repr(getattr(back, name, None)) == repr(getattr(value, name, None))


def test_fields_come_back_without_constructors_and_validators() -> None:
    value = shifted()
    back = read(codec_of(Shifted), write(codec_of(Shifted), value))

    assert back.when == value.when
    assert back.when.tzinfo is BERLIN
    assert back._secret == 7
    assert back.model_extra == {"more": [1]}
    assert back.model_fields_set == value.model_fields_set


def test_a_private_attribute_that_was_not_set_can_be_set() -> None:
    class Kept(BaseModel):
        _later: int = PrivateAttr()

    back = read(codec_of(Kept), write(codec_of(Kept), Kept()))
    back._later = 3

    assert back._later == 3


def test_a_property_that_was_cached_is_computed_again() -> None:
    value = Prepared("a")
    assert value.length == 2
    back = read(codec_of(Prepared), write(codec_of(Prepared), value))

    assert "length" not in vars(back)
    assert back.length == 2


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("annotation", "value", "plain"),
    [
        (str, Word.X, "x"),
        (list[str], [Word.X], ["x"]),
        (dict[str, str], {"a": Text("b")}, {"a": "b"}),
        (int, Level.ONE, 1),
        (float, 3, 3),
        (list[float], [1, 2.5], [1, 2.5]),
    ],
)
def test_a_scalar_of_a_subclass_comes_back_as_its_annotation_says(
    annotation: t.Any, value: t.Any, plain: t.Any
) -> None:
    codec = codec_of(annotation)

    assert read(codec, write(codec, value)) == plain


def test_scalars_and_arrays_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    for annotation, value in [(float, np.float64(1.5)), (int, np.int64(3)), (bool, np.bool_(True))]:
        back = read(codec_of(annotation), write(codec_of(annotation), value))
        assert type(back) is annotation
        assert back == value
    array = np.arange(6).reshape(2, 3)
    back = read(codec_of(np.ndarray), write(codec_of(np.ndarray), array))

    assert back.dtype == array.dtype
    assert (back == array).all()
    with pytest.raises(NotStorableError, match="holds Python objects"):
        write(codec_of(np.ndarray), np.array([object()]))


def test_frames_of_pandas_and_polars() -> None:
    how = "needs pandas, polars and pyarrow: pip install 'tapps_otel[frames]'"
    pd, pl = (pytest.importorskip(name, reason=how) for name in ("pandas", "polars"))
    pytest.importorskip("pyarrow", reason=how)
    for frame in (
        pl.DataFrame({"a": [1, 2], "b": ["x", None]}),
        pd.DataFrame({"a": [1, 2]}, index=["k", "l"]),
    ):
        codec = codec_of(type(frame))
        assert read(codec, write(codec, frame)).equals(frame)


# ---------------------------------------------------------------- refusals


class Hidden(BaseModel):
    name: str
    inside: str = Field(exclude=True)


class Guarded(BaseModel):
    token: SecretStr


class Schemaless:
    """Raises an exception without a text when pydantic asks for its schema."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> t.NoReturn:
        raise LookupError


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (SecretStr, "a secret is not written into a log"),
        (Guarded, "Guarded.token: SecretStr: a secret"),
        (list[Guarded], "Guarded.token"),
        (Hidden, r"Hidden.inside is excluded from what is written \(exclude=True\)"),
        (cabc.Iterator[int], "an iterator would be used up"),
        (cabc.AsyncGenerator[int, None], "an iterator would be used up"),
        (Schemaless, "Schemaless cannot be serialized as JSON: LookupError"),
    ],
)
def test_what_can_never_come_back_is_known_from_the_annotation(
    annotation: t.Any, reason: str
) -> None:
    fault = codec_of(annotation).unfit()

    assert fault is not None
    assert re.search(reason, fault)


def test_the_annotations_of_values_that_can_be_stored_are_fit() -> None:
    assert [codec_of(annotation).unfit() for annotation, _ in STORED] == [None] * len(STORED)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (dict[str, t.Any], {"a": dt.date(2026, 1, 1)}, "$.a"),
        (t.Any, (1, 2), "$"),
        (list[t.Any], [1, Aliased(ex=1)], "$[1]"),
        (object, Color.RED, "$"),
        (dict[str, int], {"a": 1.5}, "$.a"),
        (dict[str, int], OrderedDict(a=1), "$"),
        (defaultdict[str, int], defaultdict(float, a=1), "$"),  # type: ignore[arg-type]
        (OrderedDict[str, int], {"a": 1}, "$"),
        (dict[str, Base], {"a": Base("no number")}, "$.a.a"),  # type: ignore[arg-type]
        (dict[int, Base], {7: Base("no number")}, "$[7].a"),  # type: ignore[arg-type]
        (tuple[int, Base], (1, Base("no number")), "$[1].a"),  # type: ignore[arg-type]
        (tuple[int, int], (1,), "$"),
        (list[Base], [Base("no number")], "$[0].a"),  # type: ignore[arg-type]
        (Aliased, {"x": 1}, "$"),
        (str | int, 1.5, "$"),
        (list[float], [0.0, math.inf], "$[1]"),
        (Box[float], Box(math.nan), "$.item"),
        (dict[str, t.Any], {"a": {1: "b"}}, "$.a"),
        (Tree, Tree(1, [Tree(2, None)]), "$.children[0].children"),  # type: ignore[arg-type]
    ],
)
def test_what_would_come_back_different_is_refused_by_its_path(
    annotation: t.Any, value: t.Any, path: str
) -> None:
    with pytest.raises(NotStorableError) as caught:
        write(codec_of(annotation), value)

    assert caught.value.path == path


def test_a_value_that_holds_itself_is_refused() -> None:
    tree = Tree(1)
    tree.children.append(tree)
    with pytest.raises(NotStorableError, match="nested deeper"):
        write(codec_of(Tree), tree)


class Odd:
    """Pydantic writes it, and reads it back as another."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]


def test_a_user_registers_a_codec() -> None:
    assert codec_of(list[Odd]).unfit() is not None
    register_codec(Odd, lambda odd: odd.text, Odd)
    try:
        codec = codec_of(list[Odd] | None)
        assert read(codec, write(codec, [Odd("a")])) == [Odd("a")]
        register_codec(Odd, lambda odd: odd.text, lambda text: Odd(text.upper()))
        with pytest.raises(NotStorableError, match="would come back"):
            write(codec_of(Odd), Odd("a"))
    finally:
        unregister_codec(Odd)


def test_nothing_is_imported_because_a_log_names_it() -> None:
    data = b'{"$class":"subprocess.Popen","$value":{"args":["true"]}}'
    with pytest.raises(ValueError, match=r"no class subprocess\.Popen is loaded that is a"):
        read(codec_of(Base), data)


@pytest.mark.parametrize(
    "data", [b"[]", b"7", b'{"a":"no number"}', b'{"a":1,"c":2}', b'{"$class":"x"}', b"{"]
)
def test_a_form_that_does_not_fit_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        read(codec_of(Derived), data)


@pytest.mark.parametrize(
    ("annotation", "data", "message"),
    [
        (list[Base], b'{"a":1}', "{'a': 1} is not list"),
        (list, b'{"a":1}', "{'a': 1} is not list"),
        (dict, b"7", "7 is not dict"),
        (set[int], b'"x"', "'x' is not set"),
        (dict[int, int], b"[1]", "1 is not a pair"),
        (dict[int, int], b"7", "7 is not dict"),
        (tuple[int, int], b"[1]", "1 items, where tuple has 2"),
        (deque[int], b'{"$maxlen":3}', "{'$maxlen': 3} is not collections.deque"),
    ],
)
def test_a_form_of_another_container_is_named(annotation: t.Any, data: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(codec_of(annotation), data)

    assert str(caught.value) == message


def test_a_dict_of_integers_is_read_as_older_versions_wrote_it() -> None:
    assert read(codec_of(dict[int, str]), b'{"1":"a"}') == {1: "a"}


def test_a_class_that_pydantic_writes_fits_better_than_one_it_is_a_subclass_of() -> None:
    codec = PydanticCodec(decimal.Decimal)

    class Amount(decimal.Decimal):
        pass

    assert codec.fit(decimal.Decimal(1)) is Fit.EXACT
    assert codec.fit(Amount(1)) is Fit.SUBCLASS
    assert codec.fit("1") is Fit.NONE


def test_a_member_that_was_removed_since_is_named() -> None:
    with pytest.raises(ValueError, match=r"'GREEN' is not a name of \S*Color"):
        read(codec_of(Color), b'"GREEN"')


def test_a_field_that_was_added_since_has_its_default() -> None:
    assert read(codec_of(Derived), b'{"a":1}') == Derived(1, 2)


# ---------------------------------------------------------------- any value of any annotation

SCALARS: list[tuple[t.Any, st.SearchStrategy[t.Any]]] = [
    (str, st.text()),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary()),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=st.sampled_from([dt.UTC, BERLIN]) | st.none())),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (Base, st.builds(Base, st.integers()) | st.builds(Derived, st.integers(), st.integers())),
    (Aliased, st.builds(Aliased, ex=st.integers()) | st.builds(Longer, ex=st.integers())),
    (Twin, st.builds(Twin, ex=st.integers())),
    (Prepared, st.builds(Prepared, st.text(max_size=3))),
    (Frozen, st.builds(Frozen, st.integers(), st.lists(st.integers()).map(tuple))),
]
KEYS = [pair for pair in SCALARS if pair[0] in {str, int, dt.date, Color, Word, uuid.UUID, Frozen}]


@st.composite
def annotated(  # noqa: PLR0911 - one for each shape
    draw: st.DrawFn, depth: int = 3
) -> tuple[t.Any, st.SearchStrategy[t.Any]]:
    """An annotation, and a strategy for its values."""
    shape = draw(st.sampled_from(["scalar", "list", "tuple", "dict", "union", "box", "set"]))
    if depth == 0 or shape == "scalar":
        pair: tuple[t.Any, st.SearchStrategy[t.Any]] = draw(st.sampled_from(SCALARS))
        return pair
    if shape == "set":
        annotation, values = draw(st.sampled_from(KEYS))
        return set[annotation], st.sets(values, max_size=3)  # type: ignore[valid-type]
    annotation, values = draw(annotated(depth - 1))
    if shape == "list":
        return list[annotation], st.lists(values, max_size=3)  # type: ignore[valid-type]
    if shape == "box":
        return Box[annotation], st.builds(Box, values)  # type: ignore[valid-type]
    if shape == "dict":
        key, keys = draw(st.sampled_from(KEYS))
        return dict[key, annotation], st.dictionaries(keys, values, max_size=3)  # type: ignore[valid-type]
    other, others = draw(annotated(depth - 1))
    if shape == "tuple":
        return tuple[annotation, other], st.tuples(values, others)  # type: ignore[valid-type]
    return t.Union[annotation, other], values | others  # noqa: UP007 - of what is drawn


@given(st.data())
def test_any_value_comes_back_the_same_or_is_refused(data: st.DataObject) -> None:
    annotation, values = data.draw(annotated())
    value = data.draw(values)
    codec = codec_of(annotation)
    try:
        written = write(codec, value)
    except NotStorableError:
        # A union of two annotations that one value fits may leave open which of them was meant.
        assert "Union" in repr(annotation) or "|" in repr(annotation)
        return
    back = read(codec, written)

    assert back == value
    assert classes(back) == classes(value)
    assert digest(back) == digest(value)


# ---------------------------------------------------------------- digests


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Base(1), Derived(1, 2)),
        (Aliased(ex=1), Twin(ex=1)),
        (Aliased(ex=1), Longer(ex=1)),
        (SecretStr("ann"), SecretStr("bob")),
        (Guarded(token=SecretStr("ann")), Guarded(token=SecretStr("bob"))),
        ({1: "a"}, {"1": "a"}),
        ({(1, 2): "a"}, {(1, 3): "a"}),
        ([{"a": {1: 2}}], [{"a": {"1": 2}}]),
        (Color.RED, "r"),
        (
            dt.datetime(2026, 1, 1, tzinfo=BERLIN),
            dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Paris")),
        ),
        (re.compile("a"), re.compile("a", re.IGNORECASE)),
        (b"a", "a"),
        (shifted(), shifted().model_copy(update={"more": [2]})),
    ],
)
def test_inputs_that_differ_have_other_digests(one: t.Any, other: t.Any) -> None:
    assert digest([one]) != digest([other])


def test_equal_inputs_have_the_same_digest() -> None:
    assert digest({"a": {2, 1}, "b": (1,)}) == digest({"b": [1], "a": {1, 2}})
    assert digest({(1, 2): "a", (0, 1): "b"}) == digest({(0, 1): "b", (1, 2): "a"})
    assert digest(dataclasses.replace(Derived(1), b=2)) == digest(Derived(1))


def test_a_secret_is_not_in_the_form_of_what_holds_it() -> None:
    from tapps_otel.run.codecs.canonical import canonical

    assert b"hunter2" not in canonical({"a": Guarded(token=SecretStr("hunter2"))})


def test_an_integer_of_too_many_digits_is_refused_by_name() -> None:
    @step
    def work(number: int) -> int:
        return number

    @workflow
    def flow(number: int) -> int:
        return work(10**5000)

    with pytest.raises(StepInputError, match="number"):
        flow(1)
    with pytest.raises(WorkflowInputError, match="number"):
        flow(10**5000)


def test_an_alias_of_itself_is_stored() -> None:
    """As a `type` statement makes it, which Python has since 3.12."""

    class TypeAliasType:
        __name__ = "Json"

        @property
        def __value__(self) -> t.Any:
            return t.Union[GenericAlias(dict, (str, self)), GenericAlias(list, (self,)), int]  # noqa: UP007

    codec, value = codec_of(TypeAliasType()), {"a": [1, {"b": 2}], "c": {}}

    assert read(codec, write(codec, value)) == value
    with pytest.raises(NotStorableError, match="does not match its annotation"):
        write(codec, {"a": ["x"]})
