"""JSON's own values: what they are, and how they are written and read. Pure."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

__all__ = [
    "MAX_DEPTH",
    "MOST_TEXT",
    "NotStorableError",
    "check_native",
    "check_text",
    "class_name",
    "encode_native",
    "from_json",
    "image",
    "to_json",
]

MAX_DEPTH: Final = 100  # lists and objects inside each other; readers need a bound
MOST_TEXT: Final = 16 * 1024  # bytes of a text that has to fit into a line with other fields
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
# A value as JSON with sorted keys, very fast, to be compared with another: of some that JSON does
# not have, too. Raises many exceptions, for keys that are not strings among others.
image: Final = msgspec.json.Encoder(order="sorted").encode


class NotStorableError(TypeError):
    """A value that cannot be stored.

    :ivar path: its place inside the whole value, as ``$.page.handle``
    :ivar problem: what is wrong with it
    """

    def __init__(self, problem: str, path: str = "$") -> None:
        self.path, self.problem = path, problem
        super().__init__(problem)

    def inside(self, step: str) -> NotStorableError:
        """Note that the value is a part of another: ``.name`` or ``[index]`` leads to it."""
        if len(self.path) < 80:  # a longer path would not help
            self.path = f"${step}{self.path[1:]}"
        return self

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def to_json(value: object) -> bytes:
    """Write a JSON-native value; integers stay exact, lone surrogates are escaped.

    :raises NotStorableError: naming the path of what is not JSON-native (a tuple, a NaN, a key
        that is not a string, ...)
    """
    check_native(value)
    return encode_native(value)


def encode_native(value: object) -> bytes:
    """Write what is known to be JSON-native, as a codec's form."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def from_json(data: bytes) -> Any:
    """Read what :func:`to_json` wrote.

    :raises ValueError: it is not JSON
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data)


def check_native(value: Any, depth: int = MAX_DEPTH) -> None:
    """Accept JSON-native values alone: every result is asked.

    :raises NotStorableError: naming the path of what is not JSON-native
    """
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is float:
        if not math.isfinite(value):
            raise NotStorableError(f"{value} does not exist in JSON")
        return
    if kind is not dict and kind is not list:
        raise NotStorableError(f"{class_name(kind)} is not a JSON value")
    if depth == 0:
        raise NotStorableError(f"nested deeper than {MAX_DEPTH} levels")
    items = value
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise NotStorableError(f"the key {key!r:.80} is not a string")
        items = value.values()
    for item in items:
        if type(item) in _SCALARS:
            continue
        try:
            check_native(item, depth - 1)
        except NotStorableError as error:
            raise error.inside(_place(value, item)) from None


def _place(value: Any, part: object) -> str:
    """Where a part is in its list or dict."""
    if type(value) is list:
        return next(f"[{index}]" for index, item in enumerate(value) if item is part)
    return next(f".{key}" for key, item in value.items() if item is part)


def check_text(value: object, what: str, *, most: int | None = None) -> None:
    """Refuse what is not a string where the log's format has one.

    :param most: bytes of it in UTF-8, where it must fit into a line with other fields
    :raises TypeError: naming ``what``
    :raises ValueError: it is longer than ``most``
    """
    if not isinstance(value, str):
        msg = f"{what} must be a string, not {value!r:.80} ({type(value).__name__})"
        raise TypeError(msg)
    size = 0 if most is None else len(value.encode("utf-8", "surrogatepass"))
    if most is not None and size > most:
        msg = f"{what} has {size} bytes, and at most {most} are stored: shorten it"
        raise ValueError(msg)


def class_name(kind: type) -> str:
    """A class's qualified name with its module, as ``decimal.Decimal``; built-ins without it."""
    own = kind.__qualname__
    return own if kind.__module__ in {"builtins", own} else f"{kind.__module__}.{own}"
