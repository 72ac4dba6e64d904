"""The program's own log records name the run, step and attempt that they come from."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from commands import environment
from tapps_otel import RunContextFilter, configure, step, workflow
from tapps_otel.run import log_context

FORMAT = "%(tapps_run)s %(tapps_step)s %(tapps_attempt)s %(message)s"
log = logging.getLogger("program.part")


class Lines(logging.Handler):
    """Formats records into lines."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def handler() -> Iterator[Lines]:
    made = Lines()
    log.addHandler(made)
    log.setLevel(logging.INFO)
    yield made
    log.removeHandler(made)


@pytest.fixture
def factory() -> Iterator[None]:
    """The factory of records is as before after the test."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)
    log_context._factory = None


@step(retries=1)
def write(number: int) -> int:
    log.info("write %s", number)
    if number < 0 and not seen:
        seen.append(number)
        raise ValueError("again")
    return inner(number)


@step
def inner(number: int) -> int:
    log.info("inner")
    return number


@step
async def think(name: str) -> str:
    await asyncio.sleep(0)
    log.info("think %s", name)
    return name


@workflow
def flow() -> None:
    log.info("begin")
    write(1)
    write(-1)


@workflow
async def thinking() -> None:
    await asyncio.gather(think("a"), think("b"))


seen: list[int] = []


def test_a_filter_adds_run_step_and_attempt(handler: Lines) -> None:
    seen.clear()
    handler.addFilter(RunContextFilter())
    log.info("before")
    flow.options(workflow_id="r")()
    log.info("after")

    assert handler.lines == [
        "- - - before",
        "r - - begin",
        "r write 1 write 1",
        "r write/inner 1 inner",
        "r write#2 1 write -1",
        "r write#2 2 write -1",
        "r write#2/inner 1 inner",
        "- - - after",
    ]


async def test_concurrent_steps_keep_apart(handler: Lines) -> None:
    handler.addFilter(RunContextFilter())
    await thinking.options(workflow_id="r")()

    assert sorted(handler.lines) == ["r think 1 think a", "r think#2 1 think b"]


@pytest.mark.usefixtures("factory")
def test_a_setting_adds_them_to_all_records(handler: Lines) -> None:
    seen.clear()
    configure(log_context=True)
    flow.options(workflow_id="r")()
    flow.options(workflow_id="r2")()
    log.info("after")

    assert handler.lines[0] == "r - - begin"
    assert "r2 write/inner 1 inner" in handler.lines
    assert handler.lines[-1] == "- - - after"


@pytest.mark.usefixtures("factory")
def test_what_was_added_where_a_record_was_made_stays(handler: Lines) -> None:
    kept: list[logging.LogRecord] = []
    configure(log_context=True)

    @workflow
    def keeping() -> None:
        kept.append(logging.getLogRecordFactory()("x", 20, "x.py", 1, "made inside", (), None))

    keeping.options(workflow_id="r")()
    handler.addFilter(RunContextFilter())
    handler.handle(kept[0])  # as a listener of a queue does, in a thread of its own

    assert handler.lines == ["r - - made inside"]


PROGRAM = """
import logging, sys
logging.basicConfig(format={format!r}, level=logging.INFO, stream=sys.stdout)
from tapps_otel import step, workflow
log = logging.getLogger("program")
log.info("before")

@step
def write() -> None:
    log.info("inside")

@workflow
def flow() -> None:
    write()

flow.options(workflow_id="r")()
"""


@pytest.mark.parametrize("value", ["1", "true"])
def test_a_variable_is_enough(value: str) -> None:
    source = PROGRAM.format(format=FORMAT)
    env = environment(TAPPS_OTEL_LOG_CONTEXT=value)
    done = subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["- - - before", "r write 1 inside"]
    assert "Logging error" not in done.stderr


@pytest.mark.slow
def test_it_is_off_by_default(handler: Lines) -> None:
    assert logging.getLogRecordFactory() is logging.LogRecord
    seen.clear()
    handler.setFormatter(logging.Formatter("%(message)s"))
    flow.options(workflow_id="r")()

    assert logging.getLogRecordFactory() is logging.LogRecord
