"""How much the tests try: a sample by default, every case in CI and with `pytest -m ''`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hypothesis
import pytest

_USUAL = 100  # Hypothesis's own number of examples, for which `examples` is written


def examples(number: int) -> int:
    """How many examples a property test tries under the current profile of Hypothesis.

    :param number: with the profile ``ci``
    """
    return max(1, number * hypothesis.settings().max_examples // _USUAL)


def crashing(number: int) -> hypothesis.settings:
    """Settings of a test in which each example runs, and ends, many processes.

    :param number: of examples, with the profile ``ci``
    """
    return hypothesis.settings(
        max_examples=examples(number),
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def sample(cases: Iterable[Any], size: int) -> list[Any]:
    """Parameters of a test; all but ``size`` of them, evenly spread, are marked ``exhaustive``."""
    cases = list(cases)
    chosen = {round(number * (len(cases) - 1) / max(1, size - 1)) for number in range(size)}
    return [case if place in chosen else _exhaustive(case) for place, case in enumerate(cases)]


def _exhaustive(case: Any) -> Any:
    mark = pytest.mark.exhaustive
    if isinstance(case, tuple):
        values, marks = getattr(case, "values", case), getattr(case, "marks", ())
        return pytest.param(*values, marks=[*marks, mark], id=getattr(case, "id", None))
    return pytest.param(case, marks=mark)
