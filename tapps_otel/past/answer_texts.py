"""Whether a text has the form that is asked for: a pattern, a format, or a key's type. Pure."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import TypeAdapter

__all__ = ["has_form", "key_readings", "matches"]

_MOST_KEPT: Final = 100  # adapters


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern is found: by an engine that no pattern of a log can slow down."""
    adapter = _of_pattern(pattern)
    return adapter is None or _accepts(adapter, text)


def has_form(form: str, text: str) -> bool:
    """Whether a text has the format of that name; any text has one that pydantic does not check."""
    adapter = _of_form(form)
    return adapter is None or _accepts(adapter, text)


def key_readings(key: str) -> Iterator[Any]:
    """Yield what a key may stand for: keys of JSON are texts, in which pydantic reads numbers."""
    from pydantic import TypeAdapter, ValidationError

    yield key
    for kind in (int, float, bool):
        try:
            yield TypeAdapter(kind).validate_python(key)
        except ValidationError:
            continue


def _accepts(adapter: TypeAdapter[Any], text: str) -> bool:
    from pydantic import ValidationError

    try:
        adapter.validate_json(json.dumps(text), strict=True)
    except ValidationError:
        return False
    return True


@lru_cache(_MOST_KEPT)
def _of_pattern(pattern: str) -> TypeAdapter[Any] | None:
    from pydantic import Field, TypeAdapter
    from pydantic_core import SchemaError

    try:
        return TypeAdapter(Annotated[str, Field(pattern=pattern)])
    except SchemaError:  # not a pattern of that engine: the code that asks will check it
        return None


@lru_cache(_MOST_KEPT)
def _of_form(form: str) -> TypeAdapter[Any] | None:
    from pydantic import TypeAdapter

    kind = _kinds().get(form)
    try:
        return None if kind is None else TypeAdapter(kind)
    except ImportError:  # an e-mail address needs a package, which only the code that asks has
        return None


@lru_cache(1)
def _kinds() -> dict[str, Any]:
    """Types by the names of their formats; not those that ask the file system."""
    import ipaddress
    import re
    from datetime import date, datetime, time, timedelta
    from uuid import UUID
    from zoneinfo import ZoneInfo

    import pydantic

    numbered = {f"uuid{version}": f"UUID{version}" for version in range(1, 9)}
    return {
        "date-time": datetime,
        "date": date,
        "time": time,
        "duration": timedelta,
        "uuid": UUID,
        **{form: getattr(pydantic, name, UUID) for form, name in numbered.items()},
        "uri": pydantic.AnyUrl,
        "email": pydantic.EmailStr,
        "name-email": pydantic.NameEmail,
        "ipv4": ipaddress.IPv4Address,
        "ipv6": ipaddress.IPv6Address,
        "ipvanyaddress": pydantic.IPvAnyAddress,
        "ipv4network": ipaddress.IPv4Network,
        "ipv6network": ipaddress.IPv6Network,
        "ipvanynetwork": pydantic.IPvAnyNetwork,
        "ipv4interface": ipaddress.IPv4Interface,
        "ipv6interface": ipaddress.IPv6Interface,
        "ipvanyinterface": pydantic.IPvAnyInterface,
        "base64": pydantic.Base64Bytes,
        "base64url": pydantic.Base64UrlBytes,
        "regex": re.Pattern,
        "zoneinfo": ZoneInfo,
    }
