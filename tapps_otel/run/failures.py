"""Failures: an exception as the log has it, and back. Pure, except for the traceback."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

from tapps_otel.errors import StepFailedError
from tapps_otel.run.codecs.native import to_json

__all__ = ["caused_by", "cut", "describe", "left_a_step", "mark", "rebuild"]

_MARK: Final = "_tapps_left"  # on an exception: the steps that it left, as (workflow_id, step_id)
_FIELDS: Final = (MemberDescriptorType, GetSetDescriptorType)
_TEXT_LIMIT: Final = 16 * 1024  # characters of a message or a stack
_VALUE_LIMIT: Final = 16 * 1024  # bytes of args or attributes


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as the ``error`` field: type, message, stack; args and attributes if JSON."""
    kind = type(error)
    described: dict[str, Any] = {
        "type": _type_name(kind),
        "message": cut(_message(error)),
        "stack": cut("".join(traceback.format_exception(kind, error, error.__traceback__))),
    }
    more = {"args": list(error.args), "attributes": _attributes(error)}
    kept = {name: value for name, value in more.items() if value and _is_small_json(value)}
    return {**described, **kept}


def rebuild(error: dict[str, Any] | None, module: str | None = None) -> BaseException:
    """The exception of a recorded failure; :class:`StepFailedError` if its class is not loaded.

    Nothing is imported, and no ``__init__`` runs: a log must not choose what code runs.

    :param module: of the workflow: a script is ``__main__`` in one execution, and has a name of
        its own in another
    """
    error = error or {}
    type_name, message = str(error.get("type", "?")), str(error.get("message", ""))
    kind = _loaded_exception(type_name) or _exception_of_script(type_name, module)
    args, attributes = error.get("args", []), error.get("attributes", {})
    if kind is not None and isinstance(args, list) and isinstance(attributes, dict):
        try:
            rebuilt = kind.__new__(kind, *args)
            rebuilt.args = tuple(args)
            for name, value in attributes.items():
                setattr(rebuilt, name, value)
            if str(rebuilt) == message:  # otherwise it needs what JSON could not store
                return rebuilt
        except Exception:  # noqa: BLE001, S110 - whatever the class raises
            pass
    return StepFailedError(type_name, message)


def mark(error: BaseException, workflow_id: str, step_id: str) -> None:
    """Mark ``error`` as the exception that left this step."""
    try:
        left = error.__dict__.setdefault(_MARK, [])
        left.append((workflow_id, step_id))
    except AttributeError:  # no __dict__: it cannot be marked
        pass


def left_a_step(error: BaseException, workflow_id: str) -> bool:
    """Whether ``error`` has left a step of this run."""
    return any(run == workflow_id for run, _ in getattr(error, _MARK, ()))


def caused_by(error: BaseException, workflow_id: str, parent: str | None) -> list[str]:
    """The steps of a scope whose exception left it with ``error``.

    These are of the exception itself, its cause, the members of a group; of its context only when
    the scope's own code raised it: a step's exception is merely raised *while* another is handled.
    """
    prefix = "" if parent is None else f"{parent}/"
    found: dict[str, None] = {}
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left = [
            step_id
            for run, step_id in getattr(one, _MARK, ())
            if run == workflow_id
            and step_id.startswith(prefix)
            and "/" not in step_id[len(prefix) :]
        ]
        found.update(dict.fromkeys(left))
        if not left:
            waiting += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
    return list(found)


def _type_name(kind: type[BaseException]) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "(its message cannot be shown)"


def cut(text: str) -> str:
    """Shorten a long text to its head and tail, the most useful parts of a stack."""
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _attributes(error: BaseException) -> dict[str, Any]:
    """Attributes of the exception besides its args: in its dict, in slots, in fields of C."""
    carried = dict(getattr(error, "__dict__", {}))
    for base in type(error).__mro__:
        if base is BaseException:
            break
        for name, field in vars(base).items():
            if isinstance(field, _FIELDS) and not name.startswith("__"):
                value = getattr(error, name, None)
                if value is not None:
                    carried[name] = value
    plain = {}
    for name, value in carried.items():
        with suppress(Exception):  # a value that raises when it is read is left out
            scalar = _as_scalar(value)
            if name not in {_MARK, "__notes__"} and _is_small_json(scalar):
                plain[name] = scalar
    return plain


def _as_scalar(value: Any) -> Any:
    """The plain int or str of a subclass: an ``HTTPStatus`` compares as an int."""
    if isinstance(value, int) and type(value) is not bool:
        return int(value)
    return str.__str__(value) if isinstance(value, str) else value


def _is_small_json(value: object) -> bool:
    try:
        return len(to_json(value)) <= _VALUE_LIMIT
    except (TypeError, ValueError, RecursionError):
        return False


def _loaded_exception(type_name: str) -> type[BaseException] | None:
    """Find a class by its module-qualified name in the modules that are loaded."""
    parts = type_name.split(".")
    for split in range(len(parts) - 1, -1, -1):
        module = sys.modules.get(".".join(parts[:split]) or "builtins")
        if module is None:
            continue
        found: Any = module
        for part in parts[split:]:
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
        return None
    return None


def _exception_of_script(type_name: str, module: str | None) -> type[BaseException] | None:
    """Find an exception class of the workflow's module, which was or is ``__main__``."""
    module_name, _, name = type_name.rpartition(".")
    if module is None or "__main__" not in {module_name, module}:
        return None
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return found if found.__module__ == module else None
    return None
