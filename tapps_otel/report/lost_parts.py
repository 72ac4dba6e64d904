"""What the log could not keep of failures, and what that means for a resume. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tapps_otel.past.fold import FAILED
from tapps_otel.report.lines import Line, Piece, columns
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["lost_lines", "lost_parts"]

_LINKS: Final = {"cause": "__cause__", "context": "__context__"}
_UNNAMED: Final = frozenset({"attributes", "$error", "$value"})  # levels that only the log has
_OURS: Final = frozenset({"cause", "context", "exceptions", "$error", "$value"})
_VALUES: Final = frozenset({"args", "attributes"})
_MEANING: Final = (
    "not in the log: a handler that reads it after a resume is refused (FailureDetailError), "
    "until the step is resolved"
)


def lost_parts(step: StepHistory) -> dict[str, str]:
    """Return what is missing of a step's last failure, by its place in the exception.

    :returns: with each the reason; as ``{"__cause__.response": "..."}``
    """
    last = step.last
    return dict(_lost_in(last.error)) if last.status in FAILED and last.error else {}


def lost_lines(history: RunHistory) -> list[Line]:
    """List what is missing of the failures of steps."""
    rows = [
        [
            Piece("lost", "warn"),
            Piece(plain(place)),
            Piece(f"of {plain(step.step_id)}"),
            Piece(plain(reason), "dim"),
        ]
        for step in history.steps
        for place, reason in lost_parts(step).items()
    ]
    return [*columns(rows), Line.of((_MEANING, "dim"))] if rows else []


def _lost_in(error: dict[str, Any]) -> Iterator[tuple[str, str]]:
    waiting: list[tuple[str, Any, bool]] = [("", error, True)]
    while waiting:
        place, node, ours = waiting.pop()
        if isinstance(node, dict):
            lost = node.get("lost") if ours else None
            for name, reason in lost.items() if isinstance(lost, dict) else ():
                yield _below(place, name), str(reason)
            parts = [
                (_below(place, key), one, _has_our_fields(key, ours=ours))
                for key, one in node.items()
                if one is not lost
            ]
        elif isinstance(node, list):
            parts = [(f"{place}[{number}]", one, ours) for number, one in enumerate(node)]
        else:
            continue
        waiting += reversed(parts)


def _has_our_fields(key: str, *, ours: bool) -> bool:
    """Whether what is below this key has fields of the log's format; a user's dict has its own."""
    return key in _OURS or (ours and key not in _VALUES)


def _below(place: str, name: str) -> str:
    if name in _UNNAMED:
        return place
    name = _LINKS.get(name, name)
    return f"{place}.{name}" if place else name
