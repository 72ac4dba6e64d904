"""Values that an exception carries, as JSON: they have no annotation, so the form tells the class.

JSON's own values are as they are. Of any other the form is an object of ``$class`` and ``$value``;
of an exception, one of ``$error``. On reading, a name leads only to a class that is loaded and of
a kind that is safe to make: its constructor does not run, unless it is of the standard library.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final

from tapps_otel.run.codecs.codec import CLASS, VALUE, is_tagged
from tapps_otel.run.codecs.native import NotStorableError, check_native, class_name, from_json
from tapps_otel.run.failures.exception_parts import type_name

__all__ = ["ERROR", "find_class", "read", "write"]

ERROR: Final = "$error"
_DEPTH: Final = 20
_CONTAINERS: Final[dict[str, type]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_BY_TEXT: Final[dict[str, Any]] = {"float": float, "decimal.Decimal": Decimal}  # NaN, infinity
_KNOWN: Final = frozenset(
    {"datetime.date", "datetime.timedelta", "uuid.UUID", "fractions.Fraction",
     "pathlib.Path", "pathlib.PurePath", "pathlib.PosixPath", "pathlib.PurePosixPath",
     "pathlib._local.Path", "pathlib._local.PosixPath", "ipaddress.IPv4Address",
     "ipaddress.IPv6Address"}
)  # fmt: skip
WriteError = Callable[[BaseException], dict[str, Any]]
ReadError = Callable[[dict[str, Any]], BaseException]


def write(value: Any, write_error: WriteError, depth: int = _DEPTH) -> Any:  # noqa: PLR0911 - one for each kind
    """The form of a value.

    :param write_error: writes an exception
    :raises NotStorableError: it has none, or would come back different
    """
    kind = type(value)
    if kind in {str, int, bool, type(None)}:
        return value
    if depth == 0:
        raise NotStorableError(f"nested deeper than {_DEPTH} levels")

    def part(one: Any) -> Any:
        return write(one, write_error, depth - 1)

    if kind is float and math.isfinite(value):
        return value
    if kind in _BY_TEXT.values():
        return {CLASS: type_name(kind), VALUE: str(value)}
    if kind is list:
        return [part(one) for one in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: part(one) for key, one in value.items()}
        return {CLASS: "dict", VALUE: [[part(key), part(one)] for key, one in value.items()]}
    if kind in _CONTAINERS.values():
        return {CLASS: class_name(kind), VALUE: [part(one) for one in value]}
    if isinstance(value, BaseException):
        return {ERROR: write_error(value)}
    return _write_object(kind, value)


def _write_object(kind: type, value: Any) -> Any:
    from tapps_otel.run.codecs.compiler import codec_of  # heavy: most failures carry plain values
    from tapps_otel.run.codecs.faithful import Faithful

    if _is_known(kind) and "<locals>" not in kind.__qualname__:
        codec = codec_of(kind)
        return {CLASS: type_name(kind), VALUE: from_json(Faithful(codec).write(value))}
    # The scalar that an object of a subclass is compares as the object does.
    for scalar in (int, str, float):
        if isinstance(value, scalar) and not isinstance(value, Enum):
            plain = scalar.__str__(value) if scalar is str else scalar(value)
            check_native(plain)
            return plain
    raise NotStorableError(f"an object of class {class_name(kind)}")


def _is_known(kind: type) -> bool:
    """Whether objects of a class can be made from a log without running code of a user's class."""
    from tapps_otel.run.codecs.fields import fields_of
    from tapps_otel.run.codecs.library import builtin_codec
    from tapps_otel.run.codecs.registry import registered

    return (
        issubclass(kind, Enum)
        or class_name(kind) in _KNOWN
        or registered(kind) is not None
        or builtin_codec(kind) is not None
        or fields_of(kind) is not None
    )


def read(form: Any, read_error: ReadError, module: str | None = None) -> Any:  # noqa: PLR0911 - as above
    """The value of a form.

    :param read_error: makes an exception of what was written of it
    :param module: of the workflow, which may be a script
    :raises ValueError: its class is not loaded, or no value has this form
    """

    def part(one: Any) -> Any:
        return read(one, read_error, module)

    if type(form) is list:
        return [part(one) for one in form]
    if type(form) is not dict:
        return form
    if form.keys() == {ERROR}:
        return read_error(form[ERROR])
    if not is_tagged(form):
        return {key: part(one) for key, one in form.items()}
    name, data = form[CLASS], form[VALUE]
    if name in _BY_TEXT:
        return _BY_TEXT[name](data)
    if name == "dict":
        return {part(key): part(one) for key, one in data}
    if name in _CONTAINERS:
        return _CONTAINERS[name](part(one) for one in data)
    return _read_object(name, data, module)


def _read_object(name: str, data: Any, module: str | None) -> Any:
    from tapps_otel.run.codecs.compiler import codec_of

    kind = find_class(name, object, module)
    if kind is None or not _is_known(kind):
        msg = f"no class {name} is loaded that could be read"
        raise ValueError(msg)
    if issubclass(kind, Enum) and not issubclass(kind, Flag) and data not in kind.__members__:
        return _member(kind, data)
    return codec_of(kind).decode(data)


def _member(kind: type[Enum], value: Any) -> Any:
    """The member with a value, past the class's own ``_missing_``."""
    for member in kind.__members__.values():
        if member.value == value and type(member.value) is type(value):
            return member
    msg = f"{class_name(kind)} has no member {value!r:.80}"
    raise ValueError(msg)


def find_class(name: str, base: type, module: str | None = None) -> Any:
    """The class of this name in a loaded module, if it is a subclass of ``base``; else ``None``.

    :param module: of the workflow: a script is ``__main__`` in one execution, and has a name of
        its own in another
    """
    return _loaded(name, base) or _of_script(name, base, module)


def _loaded(name: str, base: type) -> Any:
    parts = name.split(".")
    for split in range(len(parts) - 1, -1, -1):
        module = sys.modules.get(".".join(parts[:split]) or "builtins")
        if module is not None:
            return _inside(module, parts[split:], base)
    return None


def _of_script(name: str, base: type, module: str | None) -> Any:
    module_name, _, own = name.rpartition(".")
    if module is None or "__main__" not in {module_name, module}:
        return None
    found = _inside(sys.modules.get(module), [own], base)
    return found if found is not None and found.__module__ == module else None


def _inside(found: Any, names: list[str], base: type) -> Any:
    """What these names lead to. Not by ``getattr``: a module's own could import more."""
    for name in names:
        found = getattr(found, "__dict__", {}).get(name)
    return found if isinstance(found, type) and issubclass(found, base) else None
