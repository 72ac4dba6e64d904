"""A project of the real tapps-agents for each test; skipped if it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tapps_agents_project import Project, headless


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project; headless, with agents that do nothing."""
    with headless(lambda: Project(tmp_path), monkeypatch) as made:
        yield made
