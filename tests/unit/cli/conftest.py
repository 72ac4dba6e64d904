from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import FLOW


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
