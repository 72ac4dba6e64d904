"""What is promised: ratios of parts that were measured in one round, and their targets."""

from __future__ import annotations

from .stats import Goal, Ref


def ref(text: str) -> Ref:
    """``case metric``."""
    case, metric = text.split()
    return Ref(case, metric)


GOALS: tuple[Goal, ...] = (
    Goal("DBOS's step / write + fdatasync", ref("dbos.step step_us"), ref("dbos.step floor_us")),
    Goal(
        "LangGraph's step / write + fdatasync",
        ref("langgraph.step step_us"),
        ref("langgraph.step floor_us"),
    ),
    Goal(
        "tapps-agents' event log / write + fdatasync",
        ref("tapps.step step_us"),
        ref("tapps.step floor_us"),
    ),
    Goal("Eliot's action / os.write", ref("eliot.action step_us"), ref("eliot.action floor_us")),
    Goal("fold: events a second", ref("own.fold fold_per_s"), target=400e3, at_most=False),
    Goal("check: events a second", ref("own.check check_per_s"), target=350e3, at_most=False),
    Goal(
        "check: peak memory, ten times the events",
        ref("own.check peak_rss_mb"),
        ref("own.check_small peak_rss_mb"),
        target=1.05,
    ),
    Goal(
        "check / orjson.loads of the same lines (rates)",
        ref("own.check check_per_s"),
        ref("floor.orjson lines_per_s"),
    ),
)
