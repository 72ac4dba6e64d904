"""The results of tapps-agents' gates, as the log's annotations show them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["describe_gate", "evaluated_in"]

_MOST: Final = 20  # scores, thresholds, or messages
_LONGEST: Final = 500  # characters of a message


def evaluated_in(variables: Mapping[Any, Any], step_id: str) -> Mapping[str, Any] | None:
    """The gate that a reviewer's step has evaluated itself, as tapps-agents keeps it."""
    gate = variables.get("gate_last")
    return gate if isinstance(gate, Mapping) and gate.get("step") == step_id else None


def describe_gate(passed: object, gate: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the result of a gate by attributes of an annotation.

    :param gate: what tapps-agents tells of it: scores and thresholds of a review, a condition, or
        the failures of gates of plug-ins
    """
    found = gate.get("gate_result")
    detail: Mapping[str, Any] = found if isinstance(found, Mapping) else gate
    attributes: dict[str, Any] = {"passed": bool(passed)}
    scores = _numbers(detail.get("scores"))
    if "overall_score" in scores:
        attributes["score"] = scores["overall_score"]
    attributes |= {f"scores.{name}": value for name, value in scores.items()}
    thresholds = _numbers(detail.get("thresholds"))
    attributes |= {f"thresholds.{name}": value for name, value in thresholds.items()}
    for name in ("failures", "warnings"):
        messages = _messages(detail.get(name))
        if messages:
            attributes[name] = messages
    if "condition" in gate:
        attributes["condition"] = str(gate["condition"])[:_LONGEST]
    return attributes


def _numbers(values: object) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    numbers = {
        str(name)[:_LONGEST]: value
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return dict([*numbers.items()][:_MOST])


def _messages(values: object) -> list[str]:
    if not isinstance(values, list):
        return []
    texts = (one.get("message") if isinstance(one, Mapping) else one for one in values[:_MOST])
    return [str(text)[:_LONGEST] for text in texts]
