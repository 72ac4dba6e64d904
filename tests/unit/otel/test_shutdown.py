"""The flush at exit: how long the process waits, and what it reports."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tapps_otel import clock
from tapps_otel.otel.process.shutdown import ExitFlush, Gate, close_gates, flush_all


class Moment:
    """A clock that moves only when something waits."""

    def __init__(self) -> None:
        self.now = 0

    def time_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


@pytest.fixture
def moment() -> Iterator[Moment]:
    made = Moment()
    with clock.use(made):
        yield made


class Provider:
    """Shuts down at once, or hangs until the test is over."""

    def __init__(self, *, hangs: bool) -> None:
        self.over = threading.Event()
        if not hangs:
            self.over.set()

    def shutdown(self) -> None:
        self.over.wait()


class FakeOutlet:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.given_up = self.reported = False

    def give_up(self) -> None:
        self.given_up = True

    def warn_unsent(self) -> None:
        self.reported = True

    def after_fork(self) -> None:
        pass


class Waiting(ExitFlush[FakeOutlet]):
    """Waits by the test's clock for a hanging provider, and really for another."""

    def __init__(self, moment: Moment, timeout: float, *, hangs: bool) -> None:
        self.moment, self.provider, self.outlet = moment, Provider(hangs=hangs), FakeOutlet()
        self.asked_at: int | None = None
        super().__init__(self.provider, [self.outlet], timeout)

    def request(self) -> None:
        self.asked_at = self.moment.now
        super().request()

    def wait(self, seconds: float) -> bool:
        if self.provider.over.is_set():
            return super().wait(60)
        self.moment.sleep(seconds)
        return False


@pytest.fixture
def made(moment: Moment) -> Iterator[list[Waiting]]:
    exits: list[Waiting] = []
    yield exits
    for one in exits:
        one.provider.over.set()
        one.request()


def test_hanging_flushes_share_the_time_at_exit(moment: Moment, made: list[Waiting]) -> None:
    made += [Waiting(moment, 2, hangs=True), Waiting(moment, 2, hangs=True)]
    flush_all(made)

    assert moment.now == 2e9
    assert [one.asked_at for one in made] == [0, 1e9]  # each has its share
    assert all(one.outlet.given_up and one.outlet.reported for one in made)


@pytest.mark.parametrize("hanging", [0, 1])
def test_a_hanging_flush_takes_no_time_from_others(
    moment: Moment, made: list[Waiting], hanging: int
) -> None:
    made += [Waiting(moment, 2, hangs=number == hanging) for number in (0, 1)]
    flush_all(made)

    assert moment.now == 2e9
    assert [one.outlet.given_up for one in made] == [number == hanging for number in (0, 1)]


def test_a_finished_flush_is_not_waited_for(moment: Moment, made: list[Waiting]) -> None:
    made += [Waiting(moment, 2, hangs=False), Waiting(moment, 2, hangs=False)]
    flush_all(made)

    assert moment.now == 0
    assert not any(one.outlet.given_up for one in made)


def test_no_request_is_in_progress_at_a_fork(moment: Moment, made: list[Waiting]) -> None:
    made.append(Waiting(moment, 2, hangs=False))
    (flush,) = made
    close_gates(made)
    closed = not flush.outlet.gate._lock.acquire(blocking=False)
    flush.after_fork_in_parent()
    with flush.outlet.gate:
        pass

    assert closed


class Busy(Gate):
    """A request is in progress, and does not end."""

    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self._moment = moment

    def close(self, seconds: float) -> None:
        self._moment.sleep(seconds)


def test_requests_in_progress_share_the_wait_of_a_fork(moment: Moment, made: list[Waiting]) -> None:
    made += [Waiting(moment, 2, hangs=False) for _ in range(3)]
    for one in made[:2]:
        one.outlet.gate = Busy(moment)
    close_gates(made)

    assert moment.now == 0.2e9
    assert not made[2].outlet.gate._lock.acquire(blocking=False)  # it is closed all the same


def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    gate = Gate()
    gate._lock.acquire()  # a thread that is sending while the process forks
    gate.close(0.01)
    gate.open(in_child=True)
    with gate:
        pass


def test_threads_that_fork_at_the_same_time_leave_the_gate_open() -> None:
    gate = Gate()
    gate.close(1)
    other = threading.Thread(target=gate.close, args=(0.01,))
    other.start()
    other.join()
    gate.open()

    assert gate._lock.acquire(blocking=False)
