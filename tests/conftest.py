"""For every test: a folder of its own to work in, settings of its own, and nothing left open."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapps_otel import settings


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default log folder is under the working directory; settings are the process's."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("TAPPS_OTEL_", "OTEL_"))]:
        if name != "TAPPS_OTEL_CI":
            monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "_given", {})
    monkeypatch.setattr(settings, "_current", None)


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """What a test leaves open would trouble the next one: it fails at once."""
    yield
    assert not _open_files(tmp_path), "the test left files open"
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        assert trace.get_current_span() is trace.INVALID_SPAN, "the test left a span current"


def _open_files(folder: Path) -> list[str]:
    """Files under ``folder`` that this process has open; none where the system does not say."""
    descriptors = Path("/proc/self/fd")
    found = []
    for descriptor in descriptors.iterdir() if descriptors.is_dir() else ():
        try:
            target = str(descriptor.readlink())
        except OSError:  # the one that lists the folder
            continue
        if target.startswith(f"{folder}/"):
            found.append(target)
    return found
