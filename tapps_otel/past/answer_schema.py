"""Whether an answer fits the JSON Schema of its question, and what that expects in words. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    _Misfits = Iterator[tuple[str, str]]

__all__ = ["find_misfit", "in_words"]

_DEEPEST: Final = 100  # references and values inside each other; a log may be made to harm
_SHOWN: Final = 80  # characters of a value in a message
_MOST_CHOICES: Final = 10
_KINDS: Final[dict[str, str]] = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "array": "a list",
    "object": "an object",
}


def find_misfit(schema: Mapping[str, Any] | None, value: Any) -> tuple[str, str] | None:
    """Where an answer does not fit a schema, as ``$.page.title``, and what is wrong there.

    ``None`` if it fits. Keywords that pydantic does not write are ignored.
    """
    return None if schema is None else next(_Checker(schema).misfits(schema, value, "$", 0), None)


def in_words(schema: Mapping[str, Any] | None) -> str:
    """What a schema expects, in a few words; empty if anything fits."""
    if not isinstance(schema, dict):
        return ""
    if "const" in schema:
        return _shown(schema["const"])
    choices = schema.get("enum")
    if isinstance(choices, list):
        more = ", ..." if len(choices) > _MOST_CHOICES else ""
        return f"one of {', '.join(map(_shown, choices[:_MOST_CHOICES]))}{more}"
    for word in ("anyOf", "oneOf"):
        members = schema.get(word)
        if isinstance(members, list):
            named = [in_words(one) for one in members[:_MOST_CHOICES]]
            return " or ".join(dict.fromkeys(filter(None, named)))
    title = schema.get("title") if schema.get("type") == "object" else None
    words = _KINDS.get(str(schema.get("type")), "")
    return f"{words} ({title})" if isinstance(title, str) and words else words


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return {
        "null": value is None,
        "integer": isinstance(value, int),
        "number": isinstance(value, int | float),
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }.get(kind, kind != "boolean")


class _Checker:
    """Checks values by one schema, whose parts may refer to each other."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def misfits(self, schema: Any, value: Any, path: str, depth: int) -> _Misfits:
        """Yield where a value does not fit; any number of places."""
        if not isinstance(schema, dict):
            if schema is False:
                yield path, "no value fits here"
            return
        if depth > _DEEPEST:
            yield path, "it is nested too deep"
            return
        if "$ref" in schema:
            yield from self.misfits(self._referred(schema["$ref"]), value, path, depth + 1)
        yield from self._choices(schema, value, path, depth)
        kind = schema.get("type")
        if isinstance(kind, str) and not _is(kind, value):
            expected = in_words(schema) or kind
            yield path, f"expected {expected}, not {_shown(value)}"
        elif isinstance(value, dict):
            yield from self._object(schema, value, path, depth)
        elif isinstance(value, list):
            yield from self._list(schema, value, path, depth)
        elif isinstance(value, str):
            yield from _text(schema, value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number(schema, value, path)

    def _referred(self, reference: Any) -> Any:
        """The part of the schema that a reference names; what is not there allows anything."""
        found: Any = self._root
        for name in str(reference).removeprefix("#/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def _choices(self, schema: dict[str, Any], value: Any, path: str, depth: int) -> _Misfits:
        if "const" in schema and not _equal(schema["const"], value):
            yield path, f"expected {_shown(schema['const'])}, not {_shown(value)}"
        choices = schema.get("enum")
        if isinstance(choices, list) and not any(_equal(one, value) for one in choices):
            yield path, f"expected {in_words(schema)}, not {_shown(value)}"
        for word in ("anyOf", "oneOf"):
            members = schema.get(word)
            if isinstance(members, list):
                yield from self._any_of(members, value, path, depth)
        for member in _items(schema.get("allOf")):
            yield from self.misfits(member, value, path, depth + 1)

    def _any_of(self, members: list[Any], value: Any, path: str, depth: int) -> _Misfits:
        found = [next(self.misfits(one, value, path, depth + 1), None) for one in members]
        if found and None not in found:
            deepest = max((one for one in found if one), key=lambda one: len(one[0]))
            words = in_words({"anyOf": members})
            if deepest[0] == path and words:
                yield path, f"expected {words}, not {_shown(value)}"
            else:
                yield deepest

    def _object(
        self, schema: dict[str, Any], value: dict[str, Any], path: str, depth: int
    ) -> _Misfits:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        for name in _items(schema.get("required")):
            if name not in value:
                yield f"{path}.{name}", "it is missing"
        others = schema.get("additionalProperties", True)
        for name, one in value.items():
            if others is False and name not in properties:
                yield f"{path}.{name}", "there is no such field"
            yield from self.misfits(properties.get(name, others), one, f"{path}.{name}", depth + 1)
        yield from _sizes(schema, len(value), path, "Properties", "fields")

    def _list(self, schema: dict[str, Any], value: list[Any], path: str, depth: int) -> _Misfits:
        first = _items(schema.get("prefixItems"))
        for index, one in enumerate(value):
            item = first[index] if index < len(first) else schema.get("items")
            yield from self.misfits(item, one, f"{path}[{index}]", depth + 1)
        yield from _sizes(schema, len(value), path, "Items", "items")
        if schema.get("uniqueItems") is True:
            for index, one in enumerate(value):
                if any(_equal(one, other) for other in value[:index]):
                    yield f"{path}[{index}]", "it is there twice"


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: ``true`` is not ``1``."""
    return type(one) is type(other) and json.dumps(one, sort_keys=True) == json.dumps(
        other, sort_keys=True
    )


def _sizes(schema: dict[str, Any], size: int, path: str, word: str, what: str) -> _Misfits:
    least, most = schema.get(f"min{word}"), schema.get(f"max{word}")
    if isinstance(least, int) and size < least:
        yield path, f"expected at least {least} {what}, not {size}"
    if isinstance(most, int) and size > most:
        yield path, f"expected at most {most} {what}, not {size}"


_BOUNDS: Final[tuple[tuple[str, str, Callable[[Any, Any], bool]], ...]] = (
    ("minimum", "at least", lambda value, bound: value >= bound),
    ("maximum", "at most", lambda value, bound: value <= bound),
    ("exclusiveMinimum", "more than", lambda value, bound: value > bound),
    ("exclusiveMaximum", "less than", lambda value, bound: value < bound),
    ("multipleOf", "a multiple of", lambda value, bound: not bound or value % bound == 0),
)


def _number(schema: dict[str, Any], value: float, path: str) -> _Misfits:
    for keyword, words, fits in _BOUNDS:
        bound = schema.get(keyword)
        if isinstance(bound, int | float) and not fits(value, bound):
            yield path, f"expected {words} {bound}, not {value}"


def _text(schema: dict[str, Any], value: str, path: str) -> _Misfits:
    yield from _sizes(schema, len(value), path, "Length", "characters")
    pattern, form = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str) and not _matches(pattern, value):
        yield path, f"expected a match of {_shown(pattern)}, not {_shown(value)}"
    if isinstance(form, str) and not _has_form(form, value):
        yield path, f"expected a {form}, not {_shown(value)}"


def _matches(pattern: str, value: str) -> bool:
    """Whether a pattern is found: by an engine that no pattern of a log can slow down."""
    from pydantic import Field, TypeAdapter, ValidationError
    from pydantic_core import SchemaError

    try:
        TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python(value)
    except ValidationError:
        return False
    except SchemaError:  # not a pattern of that engine: the code that asks will check it
        pass
    return True


def _has_form(form: str, value: str) -> bool:
    from datetime import date, datetime, time, timedelta
    from uuid import UUID

    from pydantic import TypeAdapter, ValidationError

    kinds: dict[str, Any] = {
        "date-time": datetime,
        "date": date,
        "time": time,
        "duration": timedelta,
        "uuid": UUID,
    }
    if form not in kinds:
        return True
    try:
        TypeAdapter(kinds[form]).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True
