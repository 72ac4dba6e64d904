"""``bind`` gives an executor its options; how steps are submitted is tested with executors."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from typing import Any

import pytest

import remote_steps
from remote_steps import Inline
from tapps_otel import bind, clock, history, workflow


class Broken(Executor):
    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        raise BrokenExecutor("its workers have died")


def test_an_executor_is_renewed_by_what_was_given() -> None:
    following = Inline()

    @workflow
    def flow() -> int:
        return bind(Broken(), renew=lambda: following).submit(remote_steps.double, 4).result()

    assert flow() == 8
    assert following.submitted == 1


def test_what_a_worker_annotates_has_the_time_of_that() -> None:
    apart_ns = 50_000_000

    @workflow
    def flow() -> None:
        bind(Inline()).submit(remote_steps.notes_twice, apart_ns).result()

    flow.options(workflow_id="r")()
    early, late = (clock.timestamp_ns(one.timestamp) for one in history("r").annotations)
    assert late - early > 0.9 * apart_ns


def test_what_an_executor_lost_does_not_start_again_once_what_waits_is_cancelled() -> None:
    following, renewing, cancelled = Inline(), threading.Event(), threading.Event()

    class Held(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            self.future: Future[Any] = Future()
            return self.future

    def another() -> Executor:
        renewing.set()
        assert cancelled.wait(60)
        return following

    @workflow
    def flow() -> int:
        held = Held()
        bound = bind(held, renew=another)
        lost = bound.submit(remote_steps.double, 4)
        held.future.set_exception(BrokenExecutor("gone"))
        assert renewing.wait(60)
        bound.shutdown(wait=False, cancel_futures=True)
        cancelled.set()
        return lost.result(60)

    with pytest.raises(CancelledError):
        flow()
    assert following.submitted == 0


class Dropping(int):
    """To load it drops a Ctrl-C, as an import may."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _drop, ()


def _drop() -> int:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    return 4


def test_ctrl_c_that_is_dropped_while_a_worker_loads_a_call_interrupts_its_step() -> None:
    engine = Inline()

    @workflow
    def flow(number: int) -> int:
        return bind(engine).submit(remote_steps.double, Dropping(number)).result()

    with pytest.raises(KeyboardInterrupt):
        flow.options(workflow_id="r")(4)
    assert engine.submitted == 1
    assert history("r").steps[0].status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
