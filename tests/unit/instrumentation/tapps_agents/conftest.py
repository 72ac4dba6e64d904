"""A project of the real tapps-agents for each test; skipped if it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapps_agents_project import Project, headless


@pytest.fixture(scope="session")
def git_alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with git and nothing else: the reviewer asks each linter that it finds who it is."""
    folder = tmp_path_factory.mktemp("bin")
    if git := shutil.which("git"):
        (folder / "git").symlink_to(git)
    return str(folder)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git_alone: str) -> Iterator[Project]:
    """An empty project; headless, with agents that do nothing."""
    monkeypatch.setenv("PATH", git_alone)
    with headless(lambda: Project(tmp_path), monkeypatch) as made:
        yield made
