"""Where two JSON values differ: the places, and what is there. Pure, and of bounded size."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from tapps_otel.log.event import readable

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Change", "changes"]

_MOST: Final = 20  # places in two values
_LONG: Final = 400  # characters of what is there
_ABSENT: Final = object()


class Change(Struct, frozen=True):
    """A place at which two JSON values differ.

    :ivar path: the place, as ``$.pages[3].title``
    :ivar before: what the first value has there, as JSON that may be cut; ``None`` for nothing
    :ivar after: what the second one has there
    """

    path: str
    before: str | None
    after: str | None


def changes(before: bytes | None, after: bytes | None) -> tuple[Change, ...]:
    """Return where two JSON texts differ; empty if their values are equal.

    :param before: ``None`` for no value
    """
    if before == after:
        return ()
    if before is None or after is None:
        return (Change("$", _cut(before), _cut(after)),)
    try:
        found = _differences(readable(before), readable(after))
        return tuple(change for change, _ in zip(found, range(_MOST), strict=False))
    except (ValueError, RecursionError):  # nested too deep to be compared part by part
        return (Change("$", _cut(before), _cut(after)),)


def _differences(before: Any, after: Any) -> Iterator[Change]:
    waiting = [("$", before, after)]
    while waiting:
        path, one, other = waiting.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            waiting += reversed([*_entries(path, one, other)])
        elif isinstance(one, list) and isinstance(other, list):
            waiting += reversed([*_items(path, one, other)])
        elif type(one) is not type(other) or one != other:  # 1 is not true
            yield Change(path, _text(one), _text(other))


def _entries(
    path: str, one: dict[str, Any], other: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in {**one, **other}:
        plain_name = name.isidentifier() and len(name) < _LONG
        place = f"{path}.{name}" if plain_name else f"{path}[{json.dumps(name[:_LONG])}]"
        yield place, one.get(name, _ABSENT), other.get(name, _ABSENT)


def _items(path: str, one: list[Any], other: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the items, paired from both ends: what was inserted or removed is between them."""
    shorter = min(len(one), len(other))
    start = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    rest = shorter - start
    same = next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)
    between = zip_longest(one[: len(one) - same], other[: len(other) - same], fillvalue=_ABSENT)
    for at, (a, b) in enumerate(between):
        yield f"{path}[{at}]", a, b
    for at in range(-same, 0):  # also equal ones: 1 equals true, and is another value
        yield f"{path}[{len(one) + at}]", one[at], other[at]


def _text(value: Any) -> str | None:
    return None if value is _ABSENT else _shortened(json.dumps(value, ensure_ascii=False))


def _cut(data: bytes | None) -> str | None:
    return None if data is None else _shortened(data.decode(errors="replace"))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
