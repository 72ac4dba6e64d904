"""Whether a value that was read back is the value that was written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, time, timezone, tzinfo
from typing import Any, Final

from tapps_otel.run.codecs.fields import fields_of
from tapps_otel.run.codecs.library import builtin_codec
from tapps_otel.run.codecs.native import class_name
from tapps_otel.run.codecs.registry import registered

__all__ = ["first_difference"]

_SCALARS: Final = frozenset({str, int, float, bool})
_CONTAINERS: Final = (dict, list, tuple, deque)
_Difference = tuple[str, str] | None
_State = tuple[dict[str, Any], dict[str, Any]]


def first_difference(was: Any, back: Any, path: str = "$") -> _Difference:
    """The place of the first difference and what it is; ``None`` if there is none.

    Equal means: of the same class, with equal parts. A scalar of a subclass of JSON's own (a
    string enum, numpy's) may have become a plain one.
    """
    kind = type(back)
    if was is back or (kind in _SCALARS and _equal(was, back)):
        return None
    if type(was) is not kind:
        return path, f"a {class_name(type(was))} would come back as a {class_name(kind)}"
    compare = _container if isinstance(was, _CONTAINERS) else _object
    return compare(was, back, path)


def _container(was: Any, back: Any, path: str) -> _Difference:
    if len(was) != len(back):
        return path, "its length would be another"
    for name in ("maxlen", "default_factory"):
        if getattr(was, name, None) != getattr(back, name, None):
            return path, f"its {name} would be another"
    parts = _parts(was, back)
    differences = (first_difference(one, other, path + step) for step, one, other in parts)
    return next(filter(None, differences), None)


def _object(was: Any, back: Any, path: str) -> _Difference:
    kind = type(was)
    codec = registered(kind) or builtin_codec(kind)
    fields = fields_of(kind)
    if isinstance(was, (datetime, time)):
        same = was == back and was.fold == back.fold and _is_same_zone(was.tzinfo, back.tzinfo)
    elif codec is not None:
        same = codec.encode(was) == codec.encode(back)
    elif fields is not None:
        return _state(fields.read(was), fields.read(back), path)
    else:
        same = _equal(was, back)
    return None if same else (path, f"{was!r:.80} would come back as {back!r:.80}")


def _parts(was: Any, back: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict):
        for key, again in zip(was, back, strict=True):
            yield f"[{key!r:.40}]", key, again
            yield f".{key}", was[key], back[again]
    else:
        for index, (one, other) in enumerate(zip(was, back, strict=True)):
            yield f"[{index}]", one, other


def _state(was: _State, back: _State, path: str) -> _Difference:
    for one, other in zip(was, back, strict=True):
        for name in {**one, **other}:
            if (name in one) != (name in other):
                return f"{path}.{name}", "it would not come back"
            if found := first_difference(one[name], other[name], f"{path}.{name}"):
                return found
    return None


def _is_same_zone(was: tzinfo | None, back: tzinfo | None) -> bool:
    """Whether all times would be the same, and have the same zone's name."""
    if isinstance(was, timezone) and isinstance(back, timezone):
        return was.tzname(None) == back.tzname(None)
    return was == back


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - of a user's class: what cannot be compared is not equal
        return False
