from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import FLOW, LOGS, Cli, child


@pytest.fixture(autouse=True)
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of workflows in the working directory."""
    path = tmp_path / "flow.py"
    path.write_text(FLOW, "utf-8")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", ["tapps-otel"])
    known = set(sys.modules)
    sigint = signal.getsignal(signal.SIGINT)
    yield path
    for name in set(sys.modules) - known:
        if name.startswith("flow"):
            del sys.modules[name]
    assert signal.getsignal(signal.SIGINT) is sigint
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.fixture
def runs(cli: Cli) -> None:
    """Three runs: completed, failed, completed."""
    cli("run", "flow.py:small", "--id", "one")
    cli("run", "flow.py:failing", "--id", "two")
    cli("run", "flow.py:wide", "--id", "three")
    for age, name in enumerate(("three", "two", "one")):
        at = 1_763_000_000 - 3600 * age
        os.utime(LOGS / f"{name}.jsonl", (at, at))


@pytest.fixture
def shop() -> Path:
    """The log of a run that was killed inside its payment."""
    assert child("run", "flow.py:shop", "--id", "s", "-q").code == -signal.SIGKILL
    return LOGS / "s.jsonl"


@pytest.fixture
def killed(cli: Cli, shop: Path) -> str:
    """A run that was killed in its payment, which was settled, and resumed."""
    Path("paid.txt").touch()
    cli("resolve", "s", "pay", "--rerun")
    assert child("resume", "s", "-q").code == 0
    return "s"
