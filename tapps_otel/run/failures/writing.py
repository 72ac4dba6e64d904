"""An exception as the ``error`` field of an event."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.errors import TappsError
from tapps_otel.redact import REDACTED
from tapps_otel.run.codecs.native import NotStorableError, class_name
from tapps_otel.run.failures import foreign, values
from tapps_otel.run.failures.exception_parts import (
    args_of,
    attributes_of,
    cut,
    dict_of,
    links_of,
    members_of,
    message_of,
    names_of_bases,
    type_name,
)
from tapps_otel.run.failures.lost import lost_details

if TYPE_CHECKING:
    from tapps_otel.redact import Rules

__all__ = ["describe"]

_DEPTH: Final = 32  # exceptions linked one below the other
# Bytes, of all exceptions of an event together: it has to fit into its line.
_TREE_LIMIT: Final = 128 * 1024  # of types, messages and notes
_VALUES_LIMIT: Final = 192 * 1024  # of args and attributes
_VALUE_LIMIT: Final = 64 * 1024  # of one of them


def describe(error: BaseException, rules: Rules, *, hides_values: bool = False) -> dict[str, Any]:
    """An exception as the ``error`` field: type, message, stack, and what a handler may ask.

    That is: ``bases`` (of its class), ``args`` and ``attributes``, ``notes``, ``cause``,
    ``context``, ``suppress_context`` and ``exceptions`` (of a group), each only if there is any.
    What could not be kept is named in ``lost``, with the reason. An exception that occurs twice has
    an ``id`` the first time, and is ``{"same": id}`` elsewhere.

    :param rules: redact the texts, and the values they would alter are lost
    :param hides_values: keep what is hidden elsewhere out of ``message`` and ``stack``, which are
        on spans: values in messages of this package, notes, and other exceptions. ``traceback``
        then has all of it
    """
    return _Writer(rules, hides_values=hides_values).write(error)


class _Writer:
    def __init__(self, rules: Rules, *, hides_values: bool) -> None:
        self._rules, self._hides_values = rules, hides_values
        self._nodes: dict[int, dict[str, Any]] = {}  # by id of the exception
        self._unfilled: list[tuple[BaseException, dict[str, Any], int]] = []
        self._tree_left, self._values_left = _TREE_LIMIT, _VALUES_LIMIT
        self._shared = 0

    def write(self, error: BaseException) -> dict[str, Any]:
        node = self._name(error)
        whole = cut(self._rules.text(_stack(error)))
        if self._hides_values:
            if isinstance(error, TappsError) and error.without_values is not None:
                node["message"] = error.without_values
            node["traceback"] = whole
            whole = cut(self._rules.text(_frames(error)) + f"{node['type']}: {node['message']}\n")
        node["stack"] = whole
        self._nodes[id(error)] = node
        self._add_tree(error, node, _DEPTH)
        # The values after the whole tree, the outermost first: what decides most gets its room.
        for inner, inner_node, depth in self._unfilled:
            self._fill(inner, inner_node, depth)
        return node

    def _node(self, error: BaseException, depth: int) -> dict[str, Any]:
        """An exception that another one leads to."""
        known = self._nodes.get(id(error))
        if known is not None:
            if "id" not in known:
                self._shared += 1
                known["id"] = self._shared
            return {"same": known["id"]}
        if depth == 0:
            raise NotStorableError(f"more than {_DEPTH} exceptions below each other")
        node = self._name(error)
        self._tree_left = _charged(self._tree_left, node)
        self._nodes[id(error)] = node
        self._add_tree(error, node, depth)
        return node

    def _add_tree(self, error: BaseException, node: dict[str, Any], depth: int) -> None:
        self._unfilled.append((error, node, depth))
        members = members_of(error)
        if members:
            self._put(node, "exceptions", lambda: [self._node(one, depth - 1) for one in members])
        for name, linked in zip(("cause", "context"), links_of(error), strict=True):
            if linked is not None:
                self._put(node, name, lambda linked=linked: self._node(linked, depth - 1))
        if error.__suppress_context__:
            node["suppress_context"] = True
        notes = dict_of(error).get("__notes__")
        if notes:
            self._put(node, "notes", lambda: self._notes(notes))

    def _notes(self, notes: Any) -> Any:
        if type(notes) is not list or not all(type(note) is str for note in notes):
            raise NotStorableError("notes that are not a list of strings")
        if self._rules.alters(notes):
            raise NotStorableError(REDACTED)
        self._tree_left = _charged(self._tree_left, notes)
        return list(notes)

    def _fill(self, error: BaseException, node: dict[str, Any], depth: int) -> None:
        """Add the values that an exception carries."""
        lost = lost_details(error)
        if lost:  # it was raised again from a log
            node.setdefault("lost", {}).update(lost)
        state = foreign.state_of(error)
        args = args_of(error)
        if state is not None:
            self._put(node, "state", lambda: self._value(state, depth))
        elif args and "args" not in lost:
            self._put(node, "args", lambda: [self._value(one, depth) for one in args])
        attributes: dict[str, Any] = {}
        for name, value in attributes_of(error, fields=state is None):
            if name in lost or foreign.is_only_shown(error, name):
                continue
            try:
                attributes[name] = self._value(value, depth, name)
            except NotStorableError as problem:
                node.setdefault("lost", {})[name] = _reason(problem)
        if attributes:
            node["attributes"] = attributes

    def _value(self, value: Any, depth: int, name: str = "") -> Any:
        known, unfilled = len(self._nodes), len(self._unfilled)
        left = self._tree_left
        try:
            form = values.write(value, lambda error: self._node(error, depth - 1))
            if self._rules.alters(values.plain(form), name):
                raise NotStorableError(REDACTED)
            if len(json.dumps(form)) > _VALUE_LIMIT:
                raise NotStorableError(f"more than {_VALUE_LIMIT} bytes")
            self._values_left = _charged(self._values_left, form)
        except Exception as problem:
            for one in list(self._nodes)[known:]:
                del self._nodes[one]
            del self._unfilled[unfilled:]
            self._tree_left = left
            if isinstance(problem, NotStorableError):
                raise
            raise NotStorableError(f"{class_name(type(value))}: {type(problem).__name__}") from None
        return form

    def _name(self, error: BaseException) -> dict[str, Any]:
        kind = type(error)
        bases = names_of_bases(kind)
        named = {"type": type_name(kind), "message": message_of(error, self._rules.text)}
        return {**named, "bases": bases} if bases else named

    def _put(self, node: dict[str, Any], name: str, make: Any) -> None:
        """Add a part of an exception, or name it as lost."""
        try:
            node[name] = make()
        except NotStorableError as problem:
            lost = node.setdefault("lost", {})
            lost[_NAMES.get(name, name)] = _reason(problem)


# The parts of an exception by their names in the log.
_NAMES: Final = {"cause": "__cause__", "context": "__context__", "notes": "__notes__"}


def _charged(left: int, form: object) -> int:
    """What is left of a budget, in the bytes of JSON's longest form."""
    left -= len(json.dumps(form))
    if left < 0:
        raise NotStorableError("more than an event of the log can hold")
    return left


def _reason(problem: NotStorableError) -> str:
    where = "" if problem.path == "$" else f"{problem.path}: "
    return f"{where}{problem.problem}"[:200]


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:  # noqa: BLE001 - whatever the user's class raises
        return _frames(error)


def _frames(error: BaseException) -> str:
    """Where it was raised, without any message."""
    return "".join(
        ("Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__))
    )
