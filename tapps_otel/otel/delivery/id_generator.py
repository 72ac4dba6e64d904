"""Ids of spans that no seed of the program repeats."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import IdGenerator

from tapps_otel import names

__all__ = ["UnseededIds"]


class UnseededIds(IdGenerator):
    """Takes ids from where those of runs come from: seeded by the system, again in each fork.

    The SDK's generator uses the functions of ``random``. A program that calls ``random.seed(42)``
    would give the same ids to the spans of all its runs, and to several spans of one run.
    """

    def generate_span_id(self) -> int:
        """Return 64 random bits, never all zero."""
        return int(names.new_span_id(), 16)

    def generate_trace_id(self) -> int:
        """Return 128 random bits, never all zero."""
        return int(names.new_trace_id(), 16)

    def is_trace_id_random(self) -> bool:
        """Whether the lower 56 bits are random (W3C Trace Context, level 2)."""
        return True
