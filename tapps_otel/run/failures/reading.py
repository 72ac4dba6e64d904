"""An exception of the ``error`` field, made again.

Nothing is imported, and no ``__init__`` runs: a log must not choose what code runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import BuiltinFunctionType
from typing import Any, NoReturn

from tapps_otel.errors import RefusalError, StepFailedError
from tapps_otel.run.failures import foreign
from tapps_otel.run.failures.exception_parts import (
    links_of,
    message_of,
    set_args,
    set_attribute,
    set_link,
)
from tapps_otel.run.failures.lost import Refuse, partial_class
from tapps_otel.run.failures.values import ERROR, find_class, read

__all__ = ["raise_again", "rebuild"]


def rebuild(
    error: dict[str, Any] | None, refuse: Refuse, module: str | None = None
) -> BaseException:
    """The exception of a recorded failure; :class:`StepFailedError` if its class is not loaded.

    :param refuse: raises the refusal of what could not be kept, when that is read; at once if the
        exception could not even be made
    :param module: of the workflow: a script is ``__main__`` in one execution, and has a name of
        its own in another
    """
    return _Reader(error or {}, refuse, module).read()


def raise_again(error: BaseException) -> NoReturn:
    """Raise an exception with its own context, wherever it is raised."""
    _, context = links_of(error)
    try:
        raise error
    except BaseException:
        # Where another exception is being handled, it has got that one as its context.
        set_link(error, "__context__", context)
        raise


class _Reader:
    def __init__(self, error: dict[str, Any], refuse: Refuse, module: str | None) -> None:
        self._error, self._refuse, self._module = error, refuse, module
        self._nodes = {node["id"]: node for node in _walk(error) if "id" in node}
        self._made: dict[int, BaseException] = {}
        self._unlinked: list[tuple[BaseException, dict[str, Any]]] = []

    def read(self) -> BaseException:
        error = self._make(self._error)
        for made, node in self._unlinked:  # grows meanwhile
            self._link(made, node)
        return error

    def _link(self, error: BaseException, node: dict[str, Any]) -> None:
        for name in ("cause", "context"):
            if name in node and self._unmakeable(node[name]) is None:
                set_link(error, f"__{name}__", self._make(node[name]))
        error.__suppress_context__ = bool(node.get("suppress_context"))

    def _make(self, node: dict[str, Any]) -> BaseException:
        """The exception of a node, without its cause and context."""
        node = self._nodes.get(node.get("same", 0), node)
        found = self._made.get(id(node))
        if found is not None:
            return found
        kind = find_class(str(node.get("type", "?")), BaseException, self._module)
        message = str(node.get("message", ""))
        if kind is None:
            error: BaseException = StepFailedError(str(node.get("type", "?")), message)
            self._made[id(node)] = error
        else:
            error = self._make_of(kind, node, message)
        if node.get("notes"):
            error.__dict__["__notes__"] = list(node["notes"])
        self._unlinked.append((error, node))
        return error

    def _make_of(self, kind: Any, node: dict[str, Any], message: str) -> BaseException:
        try:
            return self._make_known(kind, node, message)
        except RefusalError:  # of a part
            raise
        except Exception as problem:  # noqa: BLE001 - whatever the class raises
            reason = f"{type(problem).__name__}: {problem}"[:200]
        return self._refuse("class", self._unmakeable(node) or reason)

    def _unmakeable(self, node: dict[str, Any]) -> str | None:
        """Why no exception can be made of a node, if the log tells."""
        lost = self._nodes.get(node.get("same", 0), node).get("lost", {})
        found: str | None = lost.get("exceptions") or lost.get("state")
        return found

    def _make_known(self, kind: Any, node: dict[str, Any], message: str) -> BaseException:
        lost = dict(node.get("lost", {}))
        for name in ("cause", "context"):
            reason = self._unmakeable(node.get(name, {}))
            if reason is not None:
                lost[f"__{name}__"] = reason
        if "state" in node and (made := foreign.make(kind, self._value(node["state"]))):
            self._made[id(node)] = made
            return made
        if not lost:
            error = self._filled(kind, node, kind)
            if message_of(error) == message:
                return error
        return self._filled(partial_class(kind, message, lost, self._refuse), node, kind)

    def _filled(self, kind: Any, node: dict[str, Any], original: Any) -> BaseException:
        """An object of the class with the args and attributes of the node."""
        attributes = dict(node.get("attributes", {}))
        if issubclass(original, BaseExceptionGroup):
            members = [self._make(one) for one in node["exceptions"]]
            error: BaseException = BaseExceptionGroup.__new__(
                kind, attributes.pop("message"), members
            )
        else:
            error = _native_base(original).__new__(kind)
        self._made[id(node)] = error
        if "args" in node.get("lost", {}):
            set_args(error, (node.get("message", ""),))  # for the text of repr()
        else:
            set_args(error, tuple(self._value(node.get("args", []))))
        for name, form in attributes.items():
            set_attribute(error, name, self._value(form))
        return error

    def _value(self, form: Any) -> Any:
        return read(form, self._make, self._module)


def _native_base(kind: type[BaseException]) -> Any:
    """The nearest class written in C: its ``__new__`` is not the user's."""
    return next(
        base for base in kind.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType)
    )


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node and those that it leads to."""
    yield node
    for name in ("cause", "context"):
        if name in node:
            yield from _walk(node[name])
    for member in node.get("exceptions", ()):
        yield from _walk(member)
    for value in (node.get("args"), node.get("attributes"), node.get("state")):
        yield from _walk_value(value)


def _walk_value(form: Any) -> Iterator[dict[str, Any]]:
    if type(form) is dict:
        if form.keys() == {ERROR}:
            yield from _walk(form[ERROR])
        else:
            for one in form.values():
                yield from _walk_value(one)
    elif type(form) is list:
        for one in form:
            yield from _walk_value(one)
