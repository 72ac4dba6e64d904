"""The pytest plugin: it adds fixtures, and imports what they need when one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.testing.runs import Runs

__all__ = ["runs"]


@pytest.fixture
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A folder of its own for the runs of a test: no syncs, no spans, waits that take no time."""
    from tapps_otel.testing.runs import isolated_runs

    with isolated_runs(tmp_path_factory.mktemp("runs")) as found:
        yield found
