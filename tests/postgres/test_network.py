"""A machine that the network cuts off: a network namespace, whose cable is taken away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from capabilities import need
from crashes import Effects, go
from databases import started
from effort import sample
from tapps_otel import configure, step, workflow
from tapps_otel.errors import RunBusyError
from tapps_otel.run.mirrors import migrate
from waiting import until

HOLDER = """
import sys, time
from pathlib import Path
from tapps_otel import step, workflow
from tapps_otel.errors import LogWriteError
folder = Path(sys.argv[1])

@step
def wait(number: int) -> int:
    with open(folder / "effects", "a") as effects:
        effects.write(f"{number} here\\n")
    if number == 1:
        while not (folder / "cut").exists():
            time.sleep(0.01)
    return number

@workflow(name="flow")
def flow() -> int:
    return sum(wait(number) for number in range(3))

try:
    flow.options(workflow_id="r")()
except LogWriteError as error:
    print(type(error).__name__)
"""


_numbers = count()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Machine:
    """A network namespace with a cable to this one.

    :ivar address: of this end
    :ivar inside: the beginning of a command that is executed there
    """

    def __init__(self) -> None:
        number = next(_numbers)  # the kernel may still have the cable of the one before
        self.name = f"tapps{os.getpid() % 100_000}-{number}"
        self.inside = ("ip", "netns", "exec", self.name)
        self.address = (
            f"10.{os.getpid() // 20 % 200 + 20}.{(10 * os.getpid() + number) % 200 + 20}.1"
        )
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self.name, "type", "veth", "peer", "eth0", "netns", self.name)
            ip("addr", "add", f"{self.address}/24", "dev", self.name)
            ip("link", "set", self.name, "up")
            ip("-n", self.name, "addr", "add", f"{self.address}0/24", "dev", "eth0")
            ip("-n", self.name, "link", "set", "eth0", "up")
        except BaseException:
            self.remove()
            raise

    def cut_off(self) -> None:
        ip("-n", self.name, "link", "set", "eth0", "down")

    def connect(self) -> None:
        ip("-n", self.name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        ip("netns", "del", self.name)


@pytest.fixture
def machine() -> Iterator[Machine]:
    need("network namespaces")
    machine = Machine()
    yield machine
    machine.remove()


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", sample([True, False], 1))
def test_a_machine_that_is_cut_off_loses_its_run(
    machine: Machine, tmp_path: Path, did: Effects, be_on: Callable[[str], Path], comes_back: bool
) -> None:
    @step
    def wait(number: int) -> int:
        did.note(f"{number} there")
        return number

    @workflow(name="flow")
    def flow() -> int:
        return sum(wait(number) for number in range(3))

    def take_over() -> bool:
        with suppress(RunBusyError):
            return bool(go(flow))
        return False

    (tmp_path / "holder.py").write_text(HOLDER)
    with started("-c fsync=off", host=machine.address) as server:
        database = server.new()
        configure(store=database.address, spans=False)
        migrate()
        holder = subprocess.Popen(
            [*machine.inside, sys.executable, tmp_path / "holder.py", tmp_path],
            env={
                **os.environ,
                "TAPPS_OTEL_STORE": database.address,
                "TAPPS_OTEL_STORE_WAIT": "60" if comes_back else "3",
                "TAPPS_OTEL_LOG_DIR": str(tmp_path / "a"),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: "1 here" in did.all)
            machine.cut_off()
            (tmp_path / "cut").touch()  # its step ends, which the server does not hear of
            be_on("b")
            until(take_over)  # which is patient for 30 seconds
            complete = database.log("r")
            if comes_back:
                machine.connect()
            said, _ = holder.communicate(timeout=60)
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()

        assert said == ("LeaseLostError\n" if comes_back else "LogWriteError\n")
        assert did.all == ["0 here", "1 here", "1 there", "2 there"]
        assert database.log("r") == complete
