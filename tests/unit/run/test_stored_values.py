"""Inputs and results of steps and workflows, as they are read back from the log."""

from __future__ import annotations

import datetime as dt
import enum
import math
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from crashes import Effects, die_at, go, killed
from tapps_otel import Run, configure, history, skip, step, workflow
from tapps_otel.errors import (
    StepInputError,
    StepResultError,
    WorkflowInputError,
)
from tapps_otel.run.codecs.faithful import faithful

Log = Callable[..., list[dict[str, Any]]]


class Model(BaseModel):
    name: str
    at: dt.datetime
    tags: set[str] = set()


@dataclass
class Page:
    url: str
    handle: Any = None
    inner: list[Any] = field(default_factory=list)


AT = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)
NOTHING_HERE: list[Any] = []


def _back(did: Effects, annotation: Any, value: Any) -> Any:
    """The value that a step returned in a killed execution, as the next execution sees it."""

    def body() -> Any:
        did("body")
        return value

    body.__annotations__ = {} if annotation is NOTHING_HERE else {"return": annotation}
    stored = step(body)
    seen: list[Any] = []

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> None:
        seen.append(stored())
        last()

    killed(lambda: go(flow), at="last")
    go(flow)
    assert did.all == ["body"]
    (got,) = seen
    return got


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "text",
        "",
        1,
        -0.5,
        1e22,
        5e-324,
        2**64,
        -(2**200),
        10**400,
        [1, [2, {"a": None}]],
        {"a": 1, "ä": [2.5], "\0": "\x7f\u2028"},
        "\ud800 alone",
        {"\udfff": ["\ud83d", "🎉"]},
        "x" * 200_000,
        {"big": ["y" * 70_000]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_values_are_read_back_exactly(did: Effects, value: object) -> None:
    """Large integers stay exact, lone surrogates are escaped, large values go into a blob."""
    got = _back(did, NOTHING_HERE, value)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2**200),
        (str, "\ud800 alone"),
        (Model, Model(name="a", at=AT, tags={"x", "y"})),
        (Page, Page("a", handle=[1], inner=["b"])),
        (list[Model], [Model(name="a", at=AT)]),
        (dict[str, Page], {"a": Page("b")}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (dt.datetime, AT),
        (bytes, b"ab"),
        (Path, Path("a/b")),
        (Model | None, None),
        (Any, {"a": [1]}),
        (float, 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_annotated_values_come_back_as_what_they_were(
    did: Effects, annotation: Any, value: object
) -> None:
    got = _back(did, annotation, value)
    assert got == value
    assert type(got) is type(value)


def _refused(annotation: Any, value: Any) -> StepResultError:
    def body() -> Any:
        return value

    body.__annotations__ = {} if annotation is NOTHING_HERE else {"return": annotation}
    stored = step(body)

    @workflow
    def flow() -> None:
        stored()

    with pytest.raises(StepResultError) as caught:
        go(flow)
    return caught.value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("annotation", [NOTHING_HERE, Any, float, dict[str, float]])
def test_nan_and_infinity_are_refused(annotation: Any, number: float) -> None:
    """The JSON libraries would write null in silence."""
    deep = annotation in (NOTHING_HERE, dict[str, float])
    error = _refused(annotation, {"a": number} if deep else number)
    assert error.path == ("$.a" if deep else "$")


class Weekday(enum.StrEnum):
    MONDAY = "mon"


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (list[float], [1.5, math.nan], "$[1]"),
        (list[float | None], [None, 1.5, math.inf], "$[2]"),
        (dict[str, float], {"a": 1.5, "b": math.nan}, "$.b"),
        (list[int], [1, 1.5], "$[1]"),
        (list[bool], [True, 1], "$[1]"),
        (list[str], ["a", None], "$[1]"),
        (tuple[int, ...], (1, "a"), "$[1]"),
        (dict[str, int], {"a": 1, "b": "c"}, "$.b"),
        (dict[str, int], {"a": 1, 2: 3}, "$.2"),
        (list, [1, Weekday.MONDAY], "$[1]"),
        (dict, {"a": {"b": Weekday.MONDAY}}, "$.a.b"),
    ],
    ids=str,
)
def test_one_wrong_value_among_many_is_refused_by_its_path(
    annotation: Any, value: object, path: str
) -> None:
    assert _refused(annotation, value).path == path


@pytest.mark.parametrize(
    ("annotation", "value", "back"),
    [
        (list[float], [1, 2.5], None),
        (list[float], [0.5, -0.0, 1e300], None),
        (list[int], [True, 10**30], None),
        (dict[str, float], {"a": 1, "b": 0.5}, None),
        (set[int], {2, 1}, None),
        (tuple[str, ...], ("b", "a"), None),
        (list[str], [Weekday.MONDAY, "b"], ["mon", "b"]),
        (dict[str, str], {Weekday.MONDAY: Weekday.MONDAY}, {"mon": "mon"}),
    ],
    ids=str,
)
def test_scalars_in_containers_come_back(annotation: Any, value: Any, back: Any) -> None:
    codec = faithful(annotation)
    found = codec.read(codec.write(value))
    assert repr(found) == repr(value if back is None else back)


def test_a_value_that_cannot_be_stored_is_refused_by_its_path() -> None:
    with socket.socket() as handle:
        error = _refused(NOTHING_HERE, {"page": {"handle": handle}})
    assert error.path == "$.page.handle"
    assert "$.page.handle: socket" in str(error)
    assert "persist=False" in str(error)


def test_so_is_one_inside_a_dataclass() -> None:
    with socket.socket() as handle:
        error = _refused(Page, Page("a", handle=handle))
    assert error.path == "$.handle"
    assert "socket" in str(error)


def test_so_is_one_inside_a_list() -> None:
    error = _refused(NOTHING_HERE, {"a": [1, object()]})
    assert error.path.startswith("$.a")
    assert "1" in error.path


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, "1"),
        (str, 1),
        (Model, {"name": "a"}),
        (list[int], ["a"]),
        (Page, Model(name="a", at=AT)),
        (None, 1),
    ],
    ids=str,
)
def test_a_value_that_its_annotation_lies_about_is_refused(annotation: Any, value: object) -> None:
    _refused(annotation, value)


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, b"ab", AT, {1: "a"}, Page("a")], ids=str)
def test_without_an_annotation_only_json_itself_is_taken(value: object) -> None:
    error = _refused(NOTHING_HERE, value)
    assert "annot" in str(error)


def test_a_refused_result_is_a_failed_step_that_runs_again(did: Effects, log: Log) -> None:
    values: list[Any] = [object(), 7]

    @step
    def work():  # type: ignore[no-untyped-def] # noqa: ANN202 - without annotation
        did("work")
        return values[did.count("work") - 1]

    @workflow
    def flow() -> int:
        return int(work())

    with pytest.raises(StepResultError):
        go(flow)
    assert log("step_fail")[0]["error"]["type"].endswith("StepResultError")
    assert go(flow) == 7


# ---------------------------------------------------------------- inputs


def test_a_workflows_inputs_come_back_by_their_annotations(did: Effects) -> None:
    seen: list[Any] = []

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow(model: Model, *pages: Page, at: dt.datetime = AT, **more: int) -> None:
        seen.append((model, pages, at, more))
        last()

    model = Model(name="a", at=AT, tags={"x"})
    killed(lambda: go(flow, model, Page("a"), Page("b"), extra=2**70), at="last")
    flow.resume("r")

    assert seen == [(model, (Page("a"), Page("b")), AT, {"extra": 2**70})]


@pytest.mark.parametrize(
    "bad",
    [math.nan, object(), {"a": {1, 2}}, (1, 2)],
    ids=["nan", "object", "set in a dict", "tuple"],
)
def test_an_input_that_cannot_be_stored_is_refused_at_once(log_dir: Path, bad: object) -> None:
    ran = []

    @workflow
    def flow(value) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - without annotation
        ran.append(value)

    with pytest.raises(WorkflowInputError) as caught:
        go(flow, bad)
    assert caught.value.path.startswith("$")
    assert "value" in str(caught.value)
    assert ran == []
    assert not list(log_dir.glob("*.jsonl"))


def test_an_input_that_its_annotation_lies_about_is_refused(log_dir: Path) -> None:
    @workflow
    def flow(number: int) -> None: ...

    with pytest.raises(WorkflowInputError, match="number"):
        go(flow, "not a number")
    assert not list(log_dir.glob("*.jsonl"))


def test_a_call_that_does_not_fit_the_signature_is_a_type_error(log_dir: Path) -> None:
    @workflow
    def flow(number: int) -> None: ...

    with pytest.raises(TypeError):
        go(flow)
    with pytest.raises(TypeError):
        go(flow, 1, wrong=2)
    assert not list(log_dir.glob("*.jsonl"))


def test_a_workflows_result_that_cannot_be_stored_is_refused() -> None:
    @workflow
    def flow():  # type: ignore[no-untyped-def] # noqa: ANN202 - without annotation
        return {"a": object()}

    with pytest.raises(StepResultError, match=r"\$\.a"):
        go(flow)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, 1e0),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (1e22, 10000000000000000000000.0),
    ],
    ids=str,
)
def test_equal_inputs_are_found(did: Effects, one: Any, other: Any) -> None:
    given = [one]

    @step
    def work(value: Any) -> None:
        did("work")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> None:
        work(given[0])
        last()

    killed(lambda: go(flow), at="last")
    given[0] = other
    go(flow)
    assert did.count("work") == 1


def test_a_default_that_is_given_is_the_same_input(did: Effects) -> None:
    given: list[dict[str, Any]] = [{}]

    @step
    def work(value: int, tone: str = "warm") -> None:
        did("work")

    @step
    def last() -> None:
        die_at("last")

    @workflow
    def flow() -> None:
        work(1, **given[0])
        last()

    killed(lambda: go(flow), at="last")
    given[0] = {"tone": "warm"}
    go(flow)
    assert did.count("work") == 1


def test_steps_inputs_are_in_the_log_only_when_asked_for(log: Log) -> None:
    from tapps_otel import configure

    @step
    def work(value: str) -> None: ...

    @workflow
    def flow(value: str) -> None:
        work(value)

    go(flow, "words")
    go_twice = flow.options(workflow_id="captured")
    configure(capture_inputs=True)
    go_twice("words")

    assert "inputs" not in log("step_start")[0]
    assert log("step_start", "captured")[0]["inputs"] == {"value": "words"}
    assert log("workflow_start")[0]["inputs"] == {"value": "words"}


def test_a_result_type_without_json_is_refused_before_anything_runs(did: Effects) -> None:
    class Handle:
        """Nothing that pydantic could write."""

    @step
    def connect() -> Handle:
        did("connect")
        return Handle()

    @step(persist=False)
    def reconnect() -> Handle:
        did("reconnect")
        return Handle()

    @workflow
    def flow() -> None:
        reconnect()
        connect()

    with pytest.raises(StepResultError, match="Handle"):
        go(flow)
    assert did.all == ["reconnect"]


def test_an_input_type_without_json_must_be_ignored() -> None:
    class Handle:
        """Nothing that pydantic could write."""

    @step
    def use(handle: Handle) -> int:
        return 1

    @workflow
    def flow() -> int:
        return use(Handle())

    with pytest.raises(StepInputError, match="ignore"):
        go(flow)


# ---------------------------------------------------------------- skips, iterators, captured inputs


@dataclass
class Numbered:
    number: int


def test_a_skip_without_a_result_returns_none_for_any_annotation(did: Effects) -> None:
    @step
    def work() -> Numbered:
        skip("not today")

    @workflow
    def flow() -> Numbered | None:
        found = work()
        if did("flow") == 1:
            raise ValueError("once")
        return found

    with pytest.raises(ValueError, match="once"):
        go(flow)
    assert go(flow) is None
    assert [one.status for one in history("r").steps] == ["skipped"]


@pytest.mark.parametrize("annotation", [Any, Iterable[int]])
def test_an_iterator_among_the_inputs_is_refused_and_not_used_up(annotation: Any) -> None:
    def total(numbers: Any) -> int:
        return sum(numbers)

    total.__annotations__ = {"numbers": annotation, "return": int}
    work = step(total)
    numbers = (number for number in range(4))

    @workflow
    def flow() -> int:
        with pytest.raises(StepInputError, match="iterator"):
            work(numbers)
        return work.options(key="k")(numbers)

    assert go(flow) == 6


def test_capturing_inputs_changes_nothing_for_a_call_with_a_key() -> None:
    configure(capture_inputs=True)

    @step(key="k")
    def work(lock: Any) -> str:
        return "done"

    @workflow
    def flow() -> str:
        return work(threading.Lock())

    assert go(flow) == "done"


def test_a_result_that_is_refused_after_the_body_ran_says_what_was_done(did: Effects) -> None:
    @step
    def pay(amount: int) -> Any:
        did("paid")
        return object()

    @workflow
    def flow() -> None:
        pay(3)

    with pytest.raises(StepResultError, match="Its code has run, and what that did is done"):
        go(flow)
    assert did.all == ["paid"]
    failure = history("r").by_id["pay"].last.error
    assert failure is not None
    assert "what that did is done" in failure["message"]  # the log says it, too


def test_a_step_that_was_begun_by_hand_says_so_too() -> None:
    with (
        pytest.raises(StepResultError, match="what that did is done"),
        Run.open("made", workflow_id="r") as run,
        run.begin("pay") as attempt,
    ):
        attempt.finish(object())


def test_an_annotation_under_type_checking_is_named_before_the_body_runs(did: Effects) -> None:
    """It is there, but not when the program runs."""

    def result() -> Unknown:  # type: ignore[name-defined] # noqa: F821
        did("body")

    def argument(given: Unknown) -> None:  # type: ignore[name-defined] # noqa: F821
        did("body")

    @workflow
    def flow() -> None:
        step(result)()

    with pytest.raises(StepResultError, match=r"'Unknown' cannot be resolved .* TYPE_CHECKING"):
        go(flow)
    with pytest.raises(WorkflowInputError, match=r"given: .*'Unknown' cannot be resolved"):
        go(workflow(argument), 1, workflow_id="s")
    assert did.all == []
