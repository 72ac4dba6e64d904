"""Failures: an exception as the log has it, and back."""

from tapps_otel.run.failures.classes import WorkflowModule
from tapps_otel.run.failures.exception_parts import cut
from tapps_otel.run.failures.marks import caused_by, left_a_step, mark
from tapps_otel.run.failures.reading import raise_again, rebuild, unknown_failure
from tapps_otel.run.failures.writing import describe

__all__ = [
    "WorkflowModule",
    "caused_by",
    "cut",
    "describe",
    "left_a_step",
    "mark",
    "raise_again",
    "rebuild",
    "unknown_failure",
]
