"""Failures in a run that was killed and resumed, and in one that was not: handlers decide alike.

A step fails with an exception that Hypothesis makes up; a handler asks it one question after the
other, and decides. The run is killed after that. Either the resumed run decides the same, or it is
refused by a named error; where all parts of the exception can be kept, it is never refused.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pydantic
import pytest
import requests
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from crashes import Outcome, die_at, in_child, killed
from effort import examples
from tapps_otel import configure, step, workflow
from tapps_otel.errors import FailureDetailError

pytestmark = pytest.mark.slow


class Kind(enum.Enum):
    LATE = "late"
    ODD = (1, 2)


@dataclasses.dataclass
class Where:
    path: str
    line: int | None = None


class ShopError(Exception):
    """Its constructor needs more than its args tell, and its text comes from attributes."""

    def __init__(self, *, code: int, extra: Any = None) -> None:
        super().__init__(f"shop {code}")
        self.code, self.extra = code, extra
        self._hidden = [code]

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.code}, {len(self._hidden)})"

    @property
    def serious(self) -> bool:
        return self.code >= 500


class OutOfStock(ShopError, KeyError):  # noqa: N818
    """Two bases, one of which is in C."""


class Slotted(Exception):  # noqa: N818 - it is what it is
    __slots__ = ("why",)

    def __init__(self, why: Any) -> None:
        super().__init__("slotted")
        self.why = why


class ShopErrors(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> ShopErrors:  # type: ignore[override]
        return ShopErrors(self.message, excs)


class Model(pydantic.BaseModel):
    number: int


# ---------------------------------------------------------------- what an exception holds

KEPT = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False),
    st.text(max_size=5), st.binary(max_size=5), st.decimals(allow_nan=False), st.uuids(),
    st.datetimes(timezones=st.just(dt.UTC)), st.dates(), st.timedeltas(), st.sampled_from(Kind),
    st.builds(Where, st.text(max_size=3), st.none() | st.integers()), st.just(Path("a/b")),
)  # fmt: skip
# Each makes one, in the process that runs the step.
LOST: list[Callable[[], Any]] = [
    object, threading.Lock, lambda: iter([1]), lambda: len, Path(__file__).open,
    lambda: "x" * 100_000, type("Local", (), {}),
]  # fmt: skip


def containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        values,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=2) | st.integers() | st.just("$class"), inner),
        ),
        max_leaves=4,
    )


@dataclasses.dataclass
class Recipe:
    """How to make an exception; the first process and the second make it alike.

    :ivar make: makes it, without what other exceptions it leads to
    :ivar lossy: a part of it cannot be kept
    """

    make: Callable[[], BaseException]
    what: str
    lossy: bool = False
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    lost: list[int] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    cause: Recipe | None = None
    context: Recipe | None = None
    suppressed: bool = False
    members: list[Recipe] = dataclasses.field(default_factory=list)

    @property
    def loses(self) -> bool:
        """Whether any part cannot be kept."""
        linked = [*filter(None, (self.cause, self.context)), *self.members]
        return self.lossy or bool(self.lost) or any(one.loses for one in linked)

    def made(self) -> BaseException:
        error = self.make()
        if self.members:
            kind: Any = ShopErrors if self.what == "ShopErrors" else ExceptionGroup
            error = kind(self.what, [one.made() for one in self.members])
        for name, value in self.attributes.items():
            setattr(error, name, value)
        for number in self.lost:
            setattr(error, f"lost{number}", LOST[number]())
        for text in self.notes:
            error.add_note(text)
        error.__context__ = None if self.context is None else self.context.made()
        error.__cause__ = None if self.cause is None else self.cause.made()
        error.__suppress_context__ = self.suppressed
        return error


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error
    raise AssertionError


def httpx_error(status: int, body: bytes) -> BaseException:
    request = httpx.Request("GET", "http://shop.example/x", headers={"x-id": "1"})
    response = httpx.Response(status, content=body, request=request, headers={"retry-after": "3"})
    return raised(response.raise_for_status)


def requests_error(status: int, body: bytes) -> BaseException:
    response = requests.Response()
    response.status_code, response.url, response.reason = status, "http://shop.example/y", "No"
    response.headers["Retry-After"] = "4"
    response.request = requests.Request("GET", response.url).prepare()
    response._content = body
    return raised(response.raise_for_status)


@st.composite
def recipes(draw: st.DrawFn, depth: int = 2, *, lossy: bool = True) -> Recipe:
    """An exception with parts that are exceptions in their turn."""
    recipe = draw(kinds())
    if depth and draw(st.integers(0, 3)) == 0:
        recipe = Recipe(Exception, draw(st.sampled_from(["ShopErrors", "several"])))
        recipe.members = draw(st.lists(recipes(depth - 1, lossy=lossy), min_size=1, max_size=3))
    if draw(st.booleans()):
        recipe.attributes["own"] = draw(containers(KEPT))
    if lossy and draw(st.integers(0, 2)) == 0:
        recipe.lost = draw(st.lists(st.integers(0, len(LOST) - 1), max_size=2, unique=True))
    recipe.notes = draw(st.lists(st.text(max_size=4), max_size=2))
    recipe.suppressed = draw(st.booleans())
    if depth and draw(st.booleans()):
        recipe.context = draw(recipes(depth - 1, lossy=lossy))
    if depth and draw(st.booleans()):
        recipe.cause = draw(recipes(depth - 1, lossy=lossy))
    return recipe


@st.composite
def kinds(draw: st.DrawFn) -> Recipe:
    number, text = draw(st.integers(0, 9)), draw(st.text(max_size=4))
    value, body = draw(containers(KEPT)), draw(st.binary(max_size=5))
    made: list[tuple[str, Callable[[], BaseException]]] = [
        ("value", lambda: ValueError(text, value)),
        ("key", lambda: KeyError(value)),
        ("os", lambda: FileNotFoundError(number + 1, text, "/x")),
        ("shop", lambda: ShopError(code=number, extra=value)),
        ("stock", lambda: OutOfStock(code=number)),
        ("slotted", lambda: Slotted(value)),
        ("decode", lambda: raised(b"\xff".decode)),
        ("json", lambda: raised(lambda: json.loads("{" + text[:1]))),
        ("called", lambda: subprocess.CalledProcessError(number, ["a", text], body, text)),
        ("late", lambda: subprocess.TimeoutExpired("a", number, body)),
        ("model", lambda: raised(lambda: Model.model_validate({"number": [text]}))),
        ("httpx", lambda: httpx_error(400 + number, body)),
        ("requests", lambda: requests_error(400 + number, body)),
    ]
    what, make = draw(st.sampled_from(made))
    return Recipe(make, what)


# ---------------------------------------------------------------- what a handler asks of it

PARTS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda error: error,
    "cause": lambda error: error.__cause__,
    "context": lambda error: error.__context__,
    "member": lambda error: error.exceptions[-1],
    "inner": lambda error: error.__cause__.__context__,
}
QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "class": lambda error: (type(error).__name__, error.__class__.__qualname__),
    "which": lambda error: branch_of(error),  # noqa: PLW0108 - it is defined below
    "star": lambda error: star_of(error),  # noqa: PLW0108
    "is": lambda error: [isinstance(error, kind) for kind in (ShopError, KeyError, OSError)],
    "text": str,
    "args": lambda error: describe(error.args),
    "notes": lambda error: getattr(error, "__notes__", []),
    "suppressed": lambda error: error.__suppress_context__,
    "code": lambda error: (error.code, error.serious),
    "why": lambda error: describe(error.why),
    "extra": lambda error: describe(error.extra),
    "own": lambda error: describe(error.own),
    "errno": lambda error: (error.errno, error.filename),
    "returncode": lambda error: (error.returncode, error.cmd, error.output, error.stderr),
    "pos": lambda error: (error.pos, error.lineno, error.doc),
    "reason": lambda error: (error.start, error.reason, error.object),
    "errors": lambda error: error.errors(include_url=False),
    "status": lambda error: error.response.status_code,
    "body": lambda error: (error.response.content, error.response.text),
    "headers": lambda error: error.response.headers["retry-after"],
    "url": lambda error: (str(error.response.url), str(error.request.url)),
    "again": lambda error: str(raised(error.response.raise_for_status)),
    "lost": lambda error: type(error.lost0).__name__,
    "other": lambda error: type(error.lost5).__name__,
    "all": lambda error: sorted(name for name in vars(error) if name[:1] != "_"),
    "has": lambda error: [hasattr(error, name) for name in ("code", "lost0", "response")],
}


def branch_of(error: BaseException) -> str:
    try:
        raise error
    except OutOfStock:
        return "stock"
    except (ShopError, ShopErrors):
        return "shop"
    except (requests.HTTPError, httpx.HTTPStatusError) as found:
        return f"http {found.response.status_code // 400}"
    except OSError as found:
        return f"os {found.errno}"
    except Exception as found:  # noqa: BLE001
        return f"any {found.__cause__ is None}"


def star_of(error: BaseException) -> list[Any]:
    taken = []
    try:
        raise error
    except* ShopError as found:
        taken.append(("shop", type(found).__name__, len(found.exceptions)))
    except* (KeyError, OSError) as found:
        taken.append(("key", type(found).__name__, len(found.exceptions)))
    except* BaseException as found:  # noqa: BLE001
        taken.append(("other", type(found).__name__, len(found.exceptions)))
    return taken


def describe(value: Any) -> Any:
    """A value and its class, which `==` does not look at."""
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [describe(one) for one in value]
    if isinstance(value, dict):
        return [(describe(key), describe(one)) for key, one in value.items()]
    return type(value).__name__, repr(value)


def ask(error: BaseException, part: str, question: str) -> str:
    """The answer, as a handler that guards itself against everything gets it."""
    try:
        return repr(QUESTIONS[question](PARTS[part](error)))
    except Exception as problem:  # noqa: BLE001 - it swallows what it can
        return f"{type(problem).__name__}: {problem}"


PAIRS = [(part, question) for part in PARTS for question in QUESTIONS]


@st.composite
def asked_of(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Most questions, in any order: the first that is refused ends it."""
    return draw(st.permutations(PAIRS))[: draw(st.integers(1, len(PAIRS)))]


# ---------------------------------------------------------------- how it is tried


def make_flow(recipe: Recipe, asked: list[tuple[str, str]]) -> Any:
    @step(name="failing")
    def failing() -> None:
        raise recipe.made()

    @step(name="decide")
    def decide(answers: list[str]) -> int:
        return len(answers)

    @step(name="last")
    def last() -> None:
        die_at("last")

    @workflow(name="flow")
    def flow() -> list[str]:
        answers: list[str] = []
        try:
            failing()
        except BaseException as error:  # noqa: BLE001 - any
            answers = [ask(error, *one) for one in asked]
        decide(answers)
        last()
        return answers

    return flow


def run(flow: Any, workflow_id: str) -> Outcome:
    """Run it in a child process: what it decided, or that it was refused."""

    def call() -> Any:
        try:
            return flow.options(workflow_id=workflow_id)()
        except FailureDetailError as refused:
            return f"refused: {refused.detail}"

    return in_child(call)


@settings(
    max_examples=examples(25),
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(st.booleans().flatmap(lambda lossy: recipes(lossy=lossy)), asked_of())
def test_a_handler_decides_alike_in_a_killed_run_or_is_refused(
    recipe: Recipe, asked: list[tuple[str, str]]
) -> None:
    note(f"{recipe} {asked}")
    with folder():
        flow = make_flow(recipe, asked)
        whole = run(flow, "whole")
        assert whole.code == 0, whole.error
        killed(flow.options(workflow_id="killed"), at="last")
        resumed = run(flow, "killed")

        assert resumed.code == 0, resumed.error
        if isinstance(resumed.value, str):
            assert recipe.loses, resumed.value
        else:
            assert resumed.value == whole.value


def folder() -> Any:
    made = tempfile.TemporaryDirectory()
    configure(log_dir=Path(made.name), durability="os", spans=False)
    return made
