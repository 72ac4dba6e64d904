"""A workflow's inputs: what is left out of the log, new parameters, decorators with arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from crashes import Effects, die_at, go, in_child, killed
from tapps_otel import history, resume, step, workflow
from tapps_otel.errors import RunConflictError, WorkflowInputError
from tapps_otel.run.workflow import find_workflow

calls: list[str] = []


@step
def last() -> None:
    die_at("last")


# ---------------------------------------------------------------- ignore=


@step(ignore=("token",))
def fetch(url: str, token: SecretStr) -> str:
    return f"{url} by {token.get_secret_value()}"


@workflow(ignore=("token",))
def download(url: str, token: SecretStr) -> str:
    got = fetch(url, token)
    last()
    return f"{got}, then {token.get_secret_value()}"


@workflow(ignore=("retries",))
def patient(url: str, retries: int = 2, *more: str, loud: bool = False) -> list[Any]:
    last()
    return [url, retries, *more, loud]


def test_what_is_ignored_is_not_in_the_log(log_dir: Path) -> None:
    assert go(download, "a.org", SecretStr("hunter2")) == "a.org by hunter2, then hunter2"
    assert history("r").inputs == b'{"url":"a.org"}'


def test_what_is_ignored_is_given_again_by_the_call_that_resumes() -> None:
    killed(lambda: go(download, "a.org", SecretStr("old")), at="last")
    outcome = in_child(lambda: go(download, "a.org", token=SecretStr("new")))
    assert outcome.value == "a.org by old, then new"


def test_resume_asks_for_what_is_ignored() -> None:
    killed(lambda: go(download, "a.org", SecretStr("old")), at="last")
    for attempt in (lambda: download.resume("r"), lambda: resume("r")):
        with pytest.raises(WorkflowInputError, match=r"needs 'token', .*\.options\(workflow_id=.*"):
            attempt()
    assert history("r").status == "interrupted"


def test_resume_takes_the_default_of_what_is_ignored() -> None:
    killed(lambda: go(patient, "a.org", 5, "x", loud=True), at="last")
    assert resume("r") == ["a.org", 2, "x", True]


def test_what_is_ignored_does_not_tell_runs_apart() -> None:
    assert go(patient, "a.org", retries=1) == ["a.org", 1, False]
    assert go(patient, "a.org", retries=9) == ["a.org", 1, False]
    with pytest.raises(RunConflictError, match="other inputs"):
        go(patient, "b.org")


def test_what_was_logged_before_it_was_ignored_is_not_compared() -> None:
    def load(url: str, retries: int) -> int:
        last()
        return retries

    killed(lambda: go(workflow(load), "a.org", 1), at="last")
    assert go(workflow(ignore=("retries",))(load), "a.org", 2) == 2


def test_an_input_that_cannot_come_back_names_ignore() -> None:
    @workflow
    def flow(token: SecretStr) -> None:
        last()

    with pytest.raises(WorkflowInputError, match=r'\$\.token: .*@workflow\(ignore=\("token",\)\)'):
        go(flow, SecretStr("a"))


def test_an_unknown_name_in_ignore_is_refused() -> None:
    with pytest.raises(TypeError, match=r"ignore=\['tokn'\]: .*flow has no such parameter"):

        @workflow(ignore=("tokn",))
        def flow(token: str) -> None: ...


def test_a_workflow_inside_a_run_ignores_it_too(did: Effects) -> None:
    token = "old"

    @workflow(ignore=("token",))
    def inner(url: str, token: str) -> str:
        did("inner")
        return url

    @workflow
    def outer() -> str:
        got = inner("a.org", token)
        last()
        return got

    killed(lambda: go(outer), at="last")
    token = "new"
    assert go(outer) == "a.org"
    assert did.all == ["inner"]


# ---------------------------------------------------------------- new parameters


def versions() -> tuple[Any, Any]:
    def old(name: str) -> str:
        last()
        return name

    def new(name: str, loud: bool = False, *more: int, size: float = 1, **rest: int) -> str:
        last()
        return f"{name.upper() if loud else name}{size}"

    return workflow(name="greet")(old), workflow(name="greet")(new)


def test_a_new_parameter_at_its_default_matches_the_stored_inputs() -> None:
    old, new = versions()
    killed(lambda: go(old, "ada"), at="last")
    with pytest.raises(RunConflictError, match="other inputs"):
        go(new, "ada", loud=True)
    with pytest.raises(RunConflictError, match="other inputs"):
        go(new, "bob")
    assert go(new, "ada") == "ada1"


def test_a_run_is_resumed_by_its_id_after_a_parameter_was_added() -> None:
    old, new = versions()
    killed(lambda: go(old, "ada"), at="last")
    assert new.resume("r") == "ada1"


def test_a_completed_run_is_answered_after_a_parameter_was_added() -> None:
    old, new = versions()
    assert go(old, "ada") == "ada"
    assert go(new, "ada") == "ada"


def test_a_new_parameter_without_a_default_does_not_fit() -> None:
    old, _ = versions()

    @workflow(name="greet")
    def new(name: str, size: int) -> str:
        return name

    killed(lambda: go(old, "ada"), at="last")
    with pytest.raises(WorkflowInputError, match="missing a required argument: 'size'"):
        new.resume("r")


# ---------------------------------------------------------------- decorators


def with_rate(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Pass an argument of its own, as its signature says."""

    @functools.wraps(fn)
    def wrapper(number: int) -> Any:
        return fn(3, number)

    return wrapper


def with_any_rate(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Pass an argument of its own; what it takes itself is not declared."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(3, *args, **kwargs)

    return wrapper


def transparent(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Pass on what it gets."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append("transparent")
        return fn(*args, **kwargs)

    return wrapper


def price(rate: int, number: int) -> int:
    last()
    return rate * number


def charge(rate: int, number: int) -> int:
    return rate * number


@pytest.mark.parametrize("decorator", [with_rate, with_any_rate])
def test_a_decorator_below_a_step_may_pass_arguments(decorator: Any, did: Effects) -> None:
    def charged(rate: int, number: int) -> int:
        did(f"charge {number}")
        return rate * number

    made = step(decorator(charged))

    @workflow
    def flow() -> list[int]:
        got = [made(2), made(5)]
        last()
        return got

    killed(lambda: go(flow), at="last")
    assert go(flow) == [6, 15]
    assert did.all == ["charge 2", "charge 5"]


def test_the_function_under_a_decorator_says_what_its_arguments_are(log: Any) -> None:
    made, plain = step(transparent(charge)), step(charge)

    @workflow
    def flow() -> list[int]:
        return [made(2, 3), made(number=3, rate=2), plain(2, 3)]

    assert go(flow) == [6, 6, 6]
    assert len({found["inputs_digest"] for found in log("step_start")}) == 1


@pytest.mark.parametrize("decorator", [with_rate, with_any_rate, transparent])
def test_inputs_of_a_workflow_over_a_decorator_come_back(decorator: Any) -> None:
    flow = workflow(decorator(price))
    arguments = (3, 2) if decorator is transparent else (2,)
    killed(lambda: go(flow, *arguments), at="last")
    assert flow.resume("r") == 6


@transparent
@workflow
def above(number: int) -> int:
    last()
    return number


def test_a_workflow_is_found_under_a_decorator(log_dir: Path) -> None:
    assert find_workflow(f"{__name__}:above").name == "above"
    killed(lambda: find_workflow(f"{__name__}:above").options(workflow_id="r")(4), at="last")
    assert resume("r") == 4
