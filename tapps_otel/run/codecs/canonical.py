"""The canonical form of a value, and its digest: what tells one call's inputs from another's. Pure.

The form is fixed here, and by no library: it must be the same in every execution, on every version
of Python.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from hashlib import sha256
from json import encoder as json_encoder
from pathlib import PurePath
from typing import Any, Final

import msgspec

from tapps_otel.run.codecs.codec import CLASS, VALUE
from tapps_otel.run.codecs.fields import fields_of
from tapps_otel.run.codecs.library import adapter, builtin_codec
from tapps_otel.run.codecs.native import class_name, image
from tapps_otel.run.codecs.registry import registered

__all__ = [
    "canonical",
    "canonical_text",
    "digest",
    "digest_of_carried",
    "digest_of_object",
    "digest_of_value",
    "find_formless",
    "form_and_image",
]

_CONTAINERS: Final = frozenset({dict, list, tuple})
_SHOWN_DEPTH: Final = 20  # parts of a path: a value may hold itself


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces, ASCII; the form that digests are made of.

    Floats are written as ``repr`` writes them (``1e+22``), sets as sorted lists, tuples as lists.
    Objects of users' classes have their class's name and their fields, as the class that they are
    of, whatever was declared. A secret is its SHA-256.

    :raises TypeError: a value without such a form
    :raises ValueError: a NaN or an infinity
    """
    return canonical_text(value).encode()


def canonical_text(value: object) -> str:
    """The canonical form, which is ASCII, as text."""
    return form_and_image(value)[0]


def form_and_image(value: object) -> tuple[str, bytes | None]:
    """The canonical form as text, and the value's image if there was need of it."""
    kind = type(value)
    if kind is dict or kind is list:
        # In most lists and dicts there is nothing but JSON's own, in ASCII. An encoder written in
        # C makes their form several times as fast: it is theirs if it reads back equal.
        try:
            data = image(value)
            if data.isascii() and _DELETE not in data and _read(data) == value:
                return data.decode(), data
        except Exception:  # noqa: BLE001, S110 - of users' classes, too
            pass
    if not _has_plain_keys(value):
        value = _with_pairs(value)
    return "".join(_chunks(value, 0)), None


def _read_float(text: str) -> float:
    """A number that is written as the form has it: without an exponent.

    :raises ValueError: it is not
    """
    value = float(text)
    if float.__repr__(value) != text:
        raise ValueError(text)
    return value


_DELETE: Final = b"\x7f"  # the only ASCII character that the form escapes and the encoder does not
_read: Final = msgspec.json.Decoder(float_hook=_read_float).decode


def digest(value: object) -> str:
    """SHA-256 of the canonical form, 64 hex."""
    return sha256(canonical(value)).hexdigest()


def digest_of_value(value: Any) -> str | None:
    """Digest of a class, a value or an object with ``__tapps_key__()``; ``None``: it is neither."""
    if isinstance(value, type) or hasattr(value, "__tapps_key__"):
        return digest_of_object(value)
    try:
        return digest(value)
    except Exception:  # noqa: BLE001 - of users' classes
        return None


def digest_of_object(value: Any) -> str | None:
    """Digest of what tells the object of a method from others of its class; ``None``: nothing.

    Its ``__tapps_key__()`` if it has one, else its value, else its attributes, where all of them
    have a form (a connection has none). Of a class, which a class method gets, the name.
    """
    if isinstance(value, type):
        return digest({CLASS: value.__qualname__})
    kind = type(value)
    if hasattr(value, "__tapps_key__"):
        return digest({CLASS: kind.__qualname__, "$key": value.__tapps_key__()})
    try:
        if fields_of(kind) is None and not (registered(kind) or builtin_codec(kind)):
            attributes = {n: one for n, one in vars(value).items() if not _is_computed(kind, n)}
            return digest({CLASS: kind.__qualname__, **attributes})
        return digest(value)
    except Exception:  # noqa: BLE001 - of users' classes
        return None


def digest_of_carried(value: object) -> str | None:
    """Digest of an argument, or of an object by what tells it from others; ``None``: nothing."""
    try:
        return digest(value)
    except Exception:  # noqa: BLE001 - it has no form as a value
        return digest_of_object(value)


def _is_computed(kind: type, name: str) -> bool:
    return isinstance(getattr(kind, name, None), cached_property)


def find_formless(value: object, path: str = "$") -> tuple[str, str] | None:
    """The innermost place that has no canonical form, and why; ``None`` if all has one."""
    try:
        canonical(value)
    except Exception as error:  # noqa: BLE001 - of users' classes
        problem = str(error) or type(error).__name__
    else:
        return None
    for step, part in _parts(value) if path.count(".") + path.count("[") < _SHOWN_DEPTH else ():
        if found := find_formless(part, path + step):
            return found
    return path, problem


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [(f".{key}", item) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    fields = fields_of(type(value))
    return (
        [] if fields is None else [(f".{name}", one) for name, one in fields.read(value)[0].items()]
    )


def _has_plain_keys(value: object) -> bool:
    """Whether all keys are strings: JSON's encoder would make strings of numbers in silence."""
    kind = type(value)
    items: Any = value
    if kind is dict:
        for key in items:
            if not isinstance(key, str):
                return False
        items = items.values()
    elif kind is not list and kind is not tuple:
        return True
    for item in items:  # noqa: SIM110 - all() would take longer
        if type(item) in _CONTAINERS and not _has_plain_keys(item):
            return False
    return True


def _with_pairs(value: Any) -> Any:
    """Dicts with keys that are not strings as their items, sorted by the keys' forms."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _with_pairs(item) for key, item in value.items()}
        pairs = sorted(
            ([canonical(key).decode(), _with_pairs(item)] for key, item in value.items()),
            key=lambda pair: pair[0],
        )
        return {"$items": pairs}
    return [_with_pairs(item) for item in value] if isinstance(value, (list, tuple)) else value


def _form_of(value: object) -> object:
    """The form of what JSON does not have; of its parts the encoder asks again."""
    kind = type(value)
    if isinstance(value, Iterator):
        raise TypeError(f"{class_name(kind)} is an iterator, which would be used up")
    for form in (_form_of_scalar, _form_of_registered, _form_of_fields):
        found = form(kind, value)
        if found is not None:
            return found
    if isinstance(value, PurePath):
        return str(value)
    try:
        return adapter(Any).dump_python(value, mode="json")
    except Exception as error:
        raise TypeError(f"{class_name(kind)} has no form as JSON") from error


def _form_of_scalar(kind: type, value: Any) -> object:
    if isinstance(value, (set, frozenset)):
        return [json.loads(text) for text in sorted(canonical_text(one) for one in value)]
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, Enum):
        return {CLASS: kind.__qualname__, VALUE: value.name}
    if hasattr(value, "get_secret_value"):
        return {CLASS: kind.__qualname__, "$sha256": digest(value.get_secret_value())}
    if kind.__module__ == "numpy" and hasattr(value, "item") and not hasattr(value, "__len__"):
        found: object = value.item()
        return found
    return None


def _form_of_registered(kind: type, value: object) -> object:
    codec = registered(kind) or builtin_codec(kind)
    return None if codec is None else {CLASS: codec.label, VALUE: codec.encode(value)}


def _form_of_fields(kind: type, value: object) -> object:
    fields = fields_of(kind)
    if fields is None:
        return None
    own, more = fields.read(value)
    extra = more.get("__pydantic_extra__", {})
    # By its name alone: a script's module is __main__ in one process only.
    return {CLASS: kind.__qualname__, **_with_pairs({**own, **extra})}


# What json.JSONEncoder makes anew for every value, which takes longer than to use it.
_chunks: Final = json_encoder.c_make_encoder(  # type: ignore[attr-defined]
    markers=None,
    default=_form_of,
    encoder=json_encoder.encode_basestring_ascii,
    indent=None,
    key_separator=":",
    item_separator=",",
    sort_keys=True,
    skipkeys=False,
    allow_nan=False,
)
