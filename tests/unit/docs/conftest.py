"""The collector that the examples send to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from capabilities import need
from otlp_collector import Collector, Sink, start_agent


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A real one, on ports of its own."""
    need("rotel")
    folder: Path = tmp_path_factory.mktemp("collector")
    with Sink() as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        process, made = start_agent(folder, sink)
        yield made
        process.kill()
        process.wait()
        sink.shutdown()
