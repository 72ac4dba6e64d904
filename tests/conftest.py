"""Fixtures and rules for every test: its own folder and settings, and nothing left open."""

from __future__ import annotations

import compileall
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

import tapps_otel
from commands import Cli, Done
from tapps_otel import settings
from tapps_otel.cli import main
from waiting import until

# HYPOTHESIS_PROFILE=thorough is for a person with time. CI tries the same examples in every run, so
# that a change cannot fail for what it did not touch: `ci` on one version of Python, and `sample`
# on the others. No profile measures time: machines are busy.
_UNTIMED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}
_FEW = 25
_REPEATED: dict[str, Any] = {"derandomize": True, "database": None, "print_blob": True, **_UNTIMED}
hypothesis.settings.register_profile("dev", max_examples=_FEW, **_UNTIMED)
hypothesis.settings.register_profile("sample", max_examples=_FEW, **_REPEATED)
hypothesis.settings.register_profile("ci", **_REPEATED)
hypothesis.settings.register_profile("thorough", max_examples=3000, **_UNTIMED)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "sample" if os.environ.get("TAPPS_OTEL_CI") else "dev")
)

# What begins like this shares what takes seconds to start: a demo that was run, a browser, a
# collector with Jaeger, a database, a check of types.
_TOGETHER = (
    "tests/e2e/test_dashboards.py",
    "tests/e2e/test_first_screens.py",
    "tests/e2e/test_index.py",
    "tests/e2e/test_page.py",
    "tests/e2e/test_stack_traces.py",
    "tests/postgres/",
    "tests/unit/test_demo.py",
    "tests/unit/test_public_face.py",
)
_SLOW = {"slow", "exhaustive"}


def pytest_configure() -> None:
    """Compile the package for children, and let them get Ctrl-C.

    A shell starts what runs in the background without it.
    """
    compileall.compile_dir(Path(tapps_otel.__file__).parent, quiet=1)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: many tests wait for a process or a disk most of their time."""
    return len(os.sched_getaffinity(0)) + 1 if sys.platform == "linux" else os.cpu_count() or 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _Scheduling(config, log)


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Gives a worker one test at a time, or all tests that share something."""

    def _split_scope(self, nodeid: str) -> str:
        return next((start for start in _TOGETHER if nodeid.startswith(start)), nodeid)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        scope = self._split_scope(self.registered_collections[node][item_index])
        work = self.assigned_work[node]
        if all(work[scope].values()):
            del work[scope]  # else all work that is done is counted again after each test


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Let workers begin with what may be slow, once the order is random: none ends with it."""
    yield
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _SLOW.isdisjoint(mark.name for mark in item.iter_markers()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each reason to skip tests, instead of one for each test."""
    skipped: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    reasons = Counter(_reason(report) for report in skipped)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} {reason}")


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return text.removeprefix("Skipped: ")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with default settings: logs go below the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of files that tests change
    for name in [name for name in os.environ if name.startswith(("TAPPS_OTEL_", "OTEL_"))]:
        if name != "TAPPS_OTEL_CI":
            monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "_given", {})
    monkeypatch.setattr(settings, "_current", None)
    catch_up = sys.modules.get("tapps_otel.otel.live.catch_up")
    if catch_up is not None:  # no test waits for what another one gave it to send
        monkeypatch.setattr(catch_up, "_worker", None)
    delivery = sys.modules.get("tapps_otel.otel.delivery.provider")
    if delivery is not None:  # nor sends through what another one has set up
        monkeypatch.setattr(delivery._setup, "outlets", [])


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a file open, or a span or a run current: the next would suffer."""
    yield
    with suppress(AssertionError):  # a thread that sends an earlier execution may read its log
        until(lambda: not _open_files(tmp_path), patience=10)
    assert not _open_files(tmp_path), "the test left files open"
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        assert trace.get_current_span() is trace.INVALID_SPAN, "the test left a span current"
    scope = sys.modules.get("tapps_otel.run.scope")
    if scope is not None:
        left = scope.current_scope.get()
        scope.current_scope.set(None)
        assert left is None, "the test left a run current"


def _open_files(folder: Path) -> list[str]:
    """Return the files under ``folder`` that this process has open, where /proc lists them."""
    descriptors = Path("/proc/self/fd")
    found = []
    for descriptor in descriptors.iterdir() if descriptors.is_dir() else ():
        try:
            target = str(descriptor.readlink())
        except OSError:  # the descriptor that lists the folder
            continue
        if target.startswith(f"{folder}/"):
            found.append(target)
    return found
