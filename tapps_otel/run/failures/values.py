"""Values that an exception carries, as JSON: they have no annotation, so the form tells the class.

JSON's own values are as they are. Of any other the form is an object of ``$class`` and ``$value``;
of an exception, one of ``$error``. On reading, a name leads only to a class that is loaded and of
a kind that is safe to make: its constructor does not run, unless it is of the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.run.codecs.codec import CLASS, VALUE, is_tagged
from tapps_otel.run.codecs.native import NotStorableError, check_native, class_name, from_json
from tapps_otel.run.codecs.registry import registered
from tapps_otel.run.failures.classes import WorkflowModule, find_class
from tapps_otel.run.failures.exception_parts import type_name
from tapps_otel.run.failures.http import LOST, http_form

if TYPE_CHECKING:
    from tapps_otel.run.failures.lost import Refuse

__all__ = ["ERROR", "Reader", "plain", "write"]

ERROR: Final = "$error"
_HTTP: Final = ("httpx.", "requests.")
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
    return _write_object(kind, value, part)


def _write_object(kind: type, value: Any, part: Callable[[Any], Any]) -> Any:
    from tapps_otel.run.codecs.compiler import codec_of  # heavy: most failures carry plain values
    from tapps_otel.run.codecs.faithful import Faithful

    of_http = http_form(kind)
    if of_http is not None and registered(kind) is None:
        return {CLASS: type_name(kind), VALUE: of_http.write(value, part)}
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

    return (
        issubclass(kind, Enum)
        or class_name(kind) in _KNOWN
        or registered(kind) is not None
        or builtin_codec(kind) is not None
        or fields_of(kind) is not None
    )


def plain(form: Any) -> Any:
    """What a form tells, for rules that look for secrets: without its classes."""
    if type(form) is list:
        return [plain(one) for one in form]
    if type(form) is not dict:
        return form
    if not is_tagged(form):
        return {key: plain(one) for key, one in form.items()}
    name, data = form[CLASS], form[VALUE]
    if name == "dict":
        return {str(plain(key)): plain(one) for key, one in data}
    if name.startswith(_HTTP):  # the names of what it has lost are no secrets
        data = (
            {key: one for key, one in data.items() if key != LOST} if type(data) is dict else data
        )
    return plain(data)


class Reader:
    """Makes values of their forms.

    :param read_error: makes an exception of what was written of it
    :param refuse: raises the refusal of what could not be kept, when that is read
    :param module: of the workflow, which may be a script
    """

    def __init__(
        self, read_error: ReadError, refuse: Refuse, module: WorkflowModule | None = None
    ) -> None:
        self._read_error, self._refuse, self._module = read_error, refuse, module

    def read(self, form: Any) -> Any:
        """The value of a form.

        :raises ValueError: its class is not loaded, or no value has this form
        """
        if type(form) is list:
            return [self.read(one) for one in form]
        if type(form) is not dict:
            return form
        if form.keys() == {ERROR}:
            return self._read_error(form[ERROR])
        if not is_tagged(form):
            return {key: self.read(one) for key, one in form.items()}
        return self._read_tagged(form[CLASS], form[VALUE])

    def _read_tagged(self, name: str, data: Any) -> Any:
        if name in _BY_TEXT:
            return _BY_TEXT[name](data)
        if name == "dict":
            return {self.read(key): self.read(one) for key, one in data}
        if name in _CONTAINERS:
            return _CONTAINERS[name](self.read(one) for one in data)
        return self._read_object(name, data)

    def _read_object(self, name: str, data: Any) -> Any:
        from tapps_otel.run.codecs.compiler import codec_of

        kind = find_class(name, object, self._module)
        of_http = None if kind is None else http_form(kind)
        if of_http is not None and registered(kind) is None:
            return of_http.make(kind, data, self.read, self._refuse)
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
