"""A project of the real tapps-agents for each test; skipped if it is not installed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from capabilities import need
from tapps_agents_project import Project, replace_agents


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project; headless, with agents that do nothing."""
    need("tapps-agents")
    for name in ("CURSOR_TRACE_ID", "TAPPS_AGENTS_PRESERVE_WORKFLOW_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAPPS_AGENTS_MODE", "headless")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules of tapps-agents
        made = Project(tmp_path)
        replace_agents(made, monkeypatch)
        yield made
    close_logs(tmp_path)


def close_logs(folder: Path) -> None:
    """Close the files that loggers of tapps-agents keep open."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", [])[:]:
            if getattr(handler, "baseFilename", "").startswith(str(folder)):
                logger.removeHandler(handler)  # type: ignore[union-attr]
                handler.close()
