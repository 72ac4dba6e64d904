"""The step and the function that ``own_remote`` submits: workers import this module."""

from __future__ import annotations

from tapps_otel import step


@step
def work(i: int) -> int:
    """A step that does nothing."""
    return i


def bare(i: int) -> int:
    """The same, for the engine alone."""
    return i
