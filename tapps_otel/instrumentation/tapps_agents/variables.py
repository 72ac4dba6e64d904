"""The variables of tapps-agents' states in the log: each step logs those that it changed."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Raw

from tapps_otel.names import ATTR
from tapps_otel.run.codecs.native import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Changes", "StepEnd", "VariableTracker", "encoded"]

_LIMIT: Final = 4 << 20  # bytes of JSON, of the variables that one step changes


class Changes(NamedTuple):
    """The variables that are new or changed since they were last looked at.

    :ivar values: as JSON, by their names
    :ivar omitted: names of those whose values are not logged
    :ivar names: of all variables, sorted; ``None`` if they have not changed
    """

    values: dict[str, Raw]
    omitted: list[str]
    names: list[str] | None


class StepEnd(NamedTuple):
    """What the end of a step logs of the variables.

    :ivar values: those that the step changed, by name; ``None`` for none
    :ivar attributes: which variables there are, where that changed, and which values are omitted
    """

    values: dict[str, Raw] | None = None
    attributes: dict[str, Any] | None = None


class VariableTracker:
    """Knows which variables of a run the log has, and so which of them a step has changed.

    Siblings that run at the same time share the variables: a change is logged by the first of them
    that ends after it.

    :param variables: those that exist already: no step has made them, or the log has them
    :param logs_values: whether values are logged, or names alone
    """

    def __init__(self, variables: Mapping[Any, Any], *, logs_values: bool) -> None:
        self._logs_values = logs_values
        self._digests = {str(name): _digest(value) for name, value in variables.items()}

    def step_end(self, variables: Mapping[Any, Any]) -> StepEnd:
        """Return what the end of a step must log of the variables as they are now."""
        changes, attributes = self.changes(variables), {}
        if changes.names is not None:
            attributes[ATTR.VARIABLES] = changes.names
        if changes.omitted:
            attributes[ATTR.VARIABLES_OMITTED] = changes.omitted
        return StepEnd(changes.values or None, attributes or None)

    def changes(self, variables: Mapping[Any, Any]) -> Changes:
        """Return what has changed since the last call, which the caller must log."""
        before, values = self._digests, {}
        self._digests = {str(name): _digest(value) for name, value in variables.items()}
        changed = {
            str(name): value
            for name, value in variables.items()
            if before.get(str(name)) != self._digests[str(name)]
        }
        if self._logs_values:
            values = encoded(changed)
        omitted = sorted(changed.keys() - values.keys())
        names = None if before.keys() == self._digests.keys() else sorted(self._digests)
        return Changes(values, omitted, names)


def encoded(variables: Mapping[str, Any]) -> dict[str, Raw]:
    """The variables that can be logged, as JSON: the smallest first, as far as there is room."""
    texts = [(name, _json(value)) for name, value in variables.items() if _is_shallow(value)]
    found: dict[str, Raw] = {}
    room = _LIMIT
    for name, text in sorted(texts, key=lambda one: len(one[1] or "")):
        if text is not None and len(text) <= room:
            found[name] = Raw(text.encode())
            room -= len(text)
    return found


def _json(value: Any) -> str | None:
    """A value as JSON, in the form in which tapps-agents saves it; ``None`` if JSON has no form."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether readers can read it: they need a bound on lists and objects inside each other."""
    if not isinstance(value, dict | list | tuple):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(one, depth - 1) for one in inside)


def _digest(value: Any) -> bytes:
    """Tells a changed value from an unchanged one, as far as JSON or its text shows that."""
    text = _json(value)
    return sha256(f"={text}".encode() if text is not None else _text(value)).digest()


def _text(value: Any) -> bytes:
    try:
        return str(value).encode(errors="replace")
    except Exception:  # noqa: BLE001 - of a class of the user
        return b""
