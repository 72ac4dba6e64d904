"""``bind`` gives an executor its options; how steps are submitted is tested with executors."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

import pytest

import remote_steps
from remote_steps import Inline
from tapps_otel import bind, workflow


class Broken(Executor):
    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        raise BrokenExecutor("its workers have died")


def test_an_executor_is_renewed_by_what_was_given() -> None:
    made: list[Executor] = []

    def another() -> Executor:
        made.append(Inline())
        return made[-1]

    @workflow
    def flow() -> int:
        return bind(Broken(), renew=another).submit(remote_steps.double, 4).result()

    assert flow() == 8
    assert len(made) == 1


def test_an_executor_has_one_step_at_a_time_at_least() -> None:
    with pytest.raises(ValueError, match="at_once=0: expected 1 or more"):
        bind(Inline(), at_once=0)


@pytest.mark.parametrize("options", [{"at_once": 1}, {"renew": Inline}])
def test_a_function_takes_no_options(options: dict[str, Any]) -> None:
    message = (
        r"^bind\(<built-in function len>\): expected a function, or an executor of "
        "concurrent.futures; at_once and renew are for executors$"
    )
    with pytest.raises(TypeError, match=message):
        bind(len, **options)
