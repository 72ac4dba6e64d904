"""Tests of workflows: a place of their own for their runs, crashes, and whether they resume.

The pytest fixture ``runs`` comes with the package. The names in ``__all__`` are imported when they
are first used, because pytest imports this package in every project that has it installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tapps_otel.testing.crashes import Crash, crash_at
    from tapps_otel.testing.resuming import answering, assert_resumes
    from tapps_otel.testing.runs import Runs, isolated_runs
    from tapps_otel.testing.set_clock import SetClock

__all__ = [
    "Crash",
    "Runs",
    "SetClock",
    "answering",
    "assert_resumes",
    "crash_at",
    "isolated_runs",
]

if not TYPE_CHECKING:  # a checker would take any misspelt name for one that this may give

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from tapps_otel.testing import crashes, resuming, runs, set_clock

        for module in (crashes, resuming, runs, set_clock):
            if name in module.__all__:
                return getattr(module, name)
        return None
