"""The printed report: one block for each section, then the ratios, then what was not measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .cases import Case
from .runner import Outcome
from .stats import Goal, Summary, collect, reach, unit


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def spread(found: Summary) -> str:
    """``median [least - most]``."""
    return f"{number(found.median):>9}  [{number(found.least)} - {number(found.most)}]"


def measurements(cases: Sequence[Case], outcome: Outcome) -> Iterable[str]:
    """The measured numbers, by section."""
    found = collect(outcome.rounds)
    for section in dict.fromkeys(case.section for case in cases):
        yield f"\n{section}"
        for case in cases:
            if case.section == section:
                yield from _case(case, found.get(case.name, {}), outcome)


def _case(case: Case, found: dict[str, Summary], outcome: Outcome) -> Iterable[str]:
    versions = outcome.versions.get(case.name, {})
    packages = ", ".join(
        f"{name} {version}" for name, version in versions.items() if name != "python"
    )
    yield f"  {case.name}: {case.what}{f' ({packages})' if packages else ''}"
    for metric, values in found.items():
        yield f"    {metric:<22}{spread(values)} {unit(metric)}  n={values.count}"
    if not found:
        yield f"    {_why(case, outcome)}"


def _why(case: Case, outcome: Outcome) -> str:
    if case.name in outcome.not_measured:
        return f"not measured: {outcome.not_measured[case.name]}"
    names = [case.name, *([case.fixture.name] if case.fixture else [])]
    return next(
        (f"FAILED: {outcome.failed[name]}" for name in names if name in outcome.failed),
        "not measured",
    )


def goals(wanted: Sequence[Goal], outcome: Outcome) -> Iterable[str]:
    """The ratios, each from parts of one round, beside their targets."""
    yield "\nratios (parts of one round; median over the rounds)"
    for goal in wanted:
        found = reach(goal, outcome.rounds)
        if found is None:
            yield f"  {goal.what:<58} not measured ({_absent(goal, outcome)})"
        else:
            yield f"  {goal.what:<58}{spread(found)} {goal.unit}  {_against(goal, found)}".rstrip()


def _absent(goal: Goal, outcome: Outcome) -> str:
    seen = {case for measured in outcome.rounds for case in measured}
    absent = {ref.case for ref in goal.refs()} - seen
    return ", ".join(sorted(absent)) or "no round has all its parts"


def _against(goal: Goal, found: Summary) -> str:
    if goal.target is None:
        return goal.verdict(found.median)
    sign = "<=" if goal.at_most else ">="
    return f"{sign} {number(goal.target)}: {goal.verdict(found.median)}"
