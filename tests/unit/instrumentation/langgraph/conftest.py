"""Each test of this folder runs with LangGraph instrumented."""

from __future__ import annotations

import pytest

from tapps_otel import configure
from tapps_otel.instrumentation import instrument


@pytest.fixture(autouse=True)
def _instrumented(_own_hooks: None) -> None:
    configure(durability="os", spans=False, metrics=False)
    instrument("langgraph")
