"""An exception of the ``error`` field, made again.

Nothing is imported, and no ``__init__`` runs: a log must not choose what code runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import BuiltinFunctionType
from typing import Any, NoReturn

from tapps_otel.errors import RefusalError, StepFailedError, TappsError
from tapps_otel.run.failures import foreign
from tapps_otel.run.failures.classes import WorkflowModule, exception_classes, loaded_bases
from tapps_otel.run.failures.exception_parts import (
    dict_of,
    links_of,
    message_of,
    set_args,
    set_attribute,
    set_link,
)
from tapps_otel.run.failures.lost import Refuse, partial_exception, stand_in
from tapps_otel.run.failures.values import ERROR, Reader

__all__ = ["raise_again", "rebuild", "unknown_failure"]

_MakeClass = Callable[[dict[str, str]], Any]  # gets what is lost, with the reasons


def rebuild(
    error: dict[str, Any] | None, refuse: Refuse, module: WorkflowModule | None = None
) -> BaseException:
    """The exception of a recorded failure.

    Where its class is not loaded, a stand-in that inherits from those of its bases that are, and
    from :class:`StepFailedError`.

    :param refuse: raises the refusal of what could not be kept, when that is read; at once if the
        exception could not even be made
    :param module: of the workflow
    """
    return _Reader(error or {}, refuse, module).read()


def unknown_failure(error: dict[str, Any]) -> StepFailedError:
    """What stands for a recorded exception that is not made again."""
    return StepFailedError(str(error.get("type", "?")), str(error.get("message", "")))


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
    def __init__(
        self, error: dict[str, Any], refuse: Refuse, module: WorkflowModule | None
    ) -> None:
        self._error, self._refuse, self._module = error, refuse, module
        self._values = Reader(self._make, refuse, module)
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
        error = self._make_or_refuse(node)
        if node.get("notes"):
            dict_of(error)["__notes__"] = list(node["notes"])
        self._unlinked.append((error, node))
        return error

    def _make_or_refuse(self, node: dict[str, Any]) -> BaseException:
        unknown = unknown_failure(node)
        kinds = exception_classes(unknown.type, self._module)
        try:
            if kinds:
                return self._make_known(kinds, node, unknown.message)
            if "bases" in node:
                return self._make_stand_in(unknown.type, node, unknown.message)
        except RefusalError:  # of a part
            raise
        except Exception as problem:  # noqa: BLE001 - whatever the class raises
            reason = f"{type(problem).__name__}: {problem}"[:200]
            self._refuse("class", self._unmakeable(node) or reason)
        self._made[id(node)] = unknown
        return unknown

    def _unmakeable(self, node: dict[str, Any]) -> str | None:
        """Why no exception can be made of a node, if the log tells."""
        lost = self._nodes.get(node.get("same", 0), node).get("lost", {})
        found: str | None = lost.get("exceptions") or lost.get("state")
        return found

    def _make_known(self, kinds: Any, node: dict[str, Any], message: str) -> BaseException:
        kind, lost = kinds[0], self._lost(node)
        if "state" in node and (made := foreign.make(kind, self._values.read(node["state"]))):
            self._made[id(node)] = made
            self._set_attributes(made, node.get("attributes", {}), lost)
            for name, reason in lost.items():  # its class has no subclass that could refuse later
                self._refuse(name, reason)
            return made

        def make_class(lost: dict[str, str]) -> Any:
            return partial_exception(tuple(kinds), lost, self._refuse, message)

        if len(kinds) == 1 and not lost:
            error = self._filled(kind, node, lost)
            if not lost and message in {message_of(error), _message_without_values(error)}:
                return error
        return self._partial(make_class, node, lost)

    def _make_stand_in(self, name: str, node: dict[str, Any], message: str) -> BaseException:
        def find() -> Any:
            return next(iter(exception_classes(name, self._module)), None)

        def make_class(lost: dict[str, str]) -> Any:
            return stand_in(name, bases, lost, self._refuse, message, all_bases=names, find=find)

        names = node["bases"]
        bases = _with_own(loaded_bases(names, self._module))
        return self._partial(make_class, node, self._lost(node))

    def _lost(self, node: dict[str, Any]) -> dict[str, str]:
        """What the log could not keep, each with the reason."""
        lost = dict(node.get("lost", {}))
        for name in ("cause", "context"):
            reason = self._unmakeable(node.get(name, {}))
            if reason is not None:
                lost[f"__{name}__"] = reason
        return lost

    def _partial(
        self, make_class: _MakeClass, node: dict[str, Any], lost: dict[str, str]
    ) -> BaseException:
        """An exception of a class of its own."""
        known = len(lost)
        error = self._filled(make_class(lost), node, lost)
        if len(lost) > known:
            error = self._filled(make_class(lost), node, lost)
        return error

    def _filled(self, kind: Any, node: dict[str, Any], lost: dict[str, str]) -> BaseException:
        """An object of the class with the args and attributes of the node.

        :param lost: gets what cannot be read
        """
        attributes = dict(node.get("attributes", {}))
        if issubclass(kind, BaseExceptionGroup):
            members = [self._make(one) for one in node["exceptions"]]
            message = attributes.pop("message")
            error: BaseException = BaseExceptionGroup.__new__(kind, message, members)
        else:
            error = _blank(kind)
        self._made[id(node)] = error
        args = None if "args" in lost else self._read("args", node.get("args", []), lost)
        # Without them, the text of repr().
        set_args(error, (node.get("message", ""),) if args is None else tuple(args))
        self._set_attributes(error, attributes, lost)
        return error

    def _set_attributes(
        self, error: BaseException, attributes: dict[str, Any], lost: dict[str, str]
    ) -> None:
        for name, form in attributes.items():
            if name not in lost:
                value = self._read(name, form, lost)
                if name not in lost:
                    set_attribute(error, name, value)

    def _read(self, name: str, form: Any, lost: dict[str, str]) -> Any:
        """A value; ``None`` and an entry in ``lost`` where it cannot be read."""
        try:
            return self._values.read(form)
        except RefusalError:
            raise
        except Exception as problem:  # noqa: BLE001 - of a codec, of a user's class
            lost[name] = f"{type(problem).__name__}: {problem}"[:200]
            return None


def _message_without_values(error: BaseException) -> str | None:
    """What an encrypted log has in plain text of a message; the whole is in the args."""
    return error.without_values if isinstance(error, TappsError) else None


def _with_own(bases: tuple[type, ...]) -> tuple[type, ...]:
    """Bases of a stand-in: it is a :class:`StepFailedError`, too, if it is an ``Exception``."""
    if not any(issubclass(base, Exception) for base in bases):
        return bases
    return (*(base for base in bases if not issubclass(StepFailedError, base)), StepFailedError)


def _blank(kind: type[BaseException]) -> BaseException:
    """An object of the class, made by a class in C: ``__new__`` of the user's does not run."""
    for base in kind.__mro__:
        make = vars(base).get("__new__")
        if isinstance(make, BuiltinFunctionType):
            with suppress(TypeError):  # of several bases in C, only one can make it
                error: BaseException = make(kind)
                return error
    raise TypeError("no built-in class can make it")


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
