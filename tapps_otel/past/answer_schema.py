"""Whether an answer fits the JSON Schema of its question, and what that expects in words. Pure."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.past.answer_texts import has_form, key_readings, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    _Misfits = Iterator[tuple[str, str]]

__all__ = ["find_misfit", "in_words"]

_DEEPEST: Final = 100  # references and values inside each other; a log may be made to harm
_SHOWN: Final = 80  # characters of a value in a message
_MOST_CHOICES: Final = 10
_MOST_CHECKS: Final = (
    10_000  # by a schema of a log that was made to harm; for each value, some more
)
_CHECKS_PER_VALUE: Final = 100
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

    ``None`` if it fits, as far as the schema tells: what a type checks by code of its own (the
    scheme of a URL, a file that must exist, a validator) is not in its schema. Keywords that
    pydantic does not write are ignored. The code that asks reads the answer by the type itself.
    """
    if schema is None:
        return None
    try:
        return next(_Checker(schema, value).misfits(schema, value, "$", 0), None)
    except _TooManyChecksError:  # the code that asks will decide
        return None


def in_words(schema: Mapping[str, Any] | None, depth: int = 0) -> str:
    """What a schema expects, in a few words; empty if anything fits."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return ""
    if "const" in schema:
        return _shown(schema["const"])
    choices = schema.get("enum")
    if isinstance(choices, list):
        if not choices:
            return "none"
        more = ", ..." if len(choices) > _MOST_CHOICES else ""
        return f"one of {', '.join(map(_shown, choices[:_MOST_CHOICES]))}{more}"
    for word in ("anyOf", "oneOf"):
        members = schema.get(word)
        if isinstance(members, list):
            named = [in_words(one, depth + 1) for one in members[:_MOST_CHOICES]]
            return " or ".join(dict.fromkeys(filter(None, named)))
    title = schema.get("title") if schema.get("type") == "object" else None
    words = _KINDS.get(str(schema.get("type")), "")
    return f"{words} ({title})" if isinstance(title, str) and words else words


def _shown(value: Any) -> str:
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        text += part
        if len(text) > _SHOWN:
            return f"{text[:_SHOWN]}..."
    return text


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


class _TooManyChecksError(Exception):
    """A schema asks for more checks than any that pydantic writes."""


class _Checker:
    """Checks one value by one schema, whose parts may refer to each other."""

    def __init__(self, root: Mapping[str, Any], value: Any) -> None:
        self._root = root
        self._left = _MOST_CHECKS + _CHECKS_PER_VALUE * _count(value)

    def misfits(self, schema: Any, value: Any, path: str, depth: int) -> _Misfits:
        """Yield where a value does not fit; any number of places.

        :raises _TooManyChecksError: to check it would take too long
        """
        self._spend(1)
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
        is_chosen = "const" in schema or "enum" in schema  # compared as pydantic does: 1.0 is 1
        if isinstance(kind, str) and not is_chosen and not _is(kind, value):
            expected = in_words(schema) or kind
            yield path, f"expected {expected}, not {_shown(value)}"
        elif isinstance(value, dict):
            yield from self._object(schema, value, path, depth)
        elif isinstance(value, list):
            yield from self._list(schema, value, path, depth)
        elif isinstance(value, str):
            yield from self._text(schema, value, path, depth)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number(schema, value, path)

    def _spend(self, checks: int) -> None:
        self._left -= checks
        if self._left < 0:
            raise _TooManyChecksError

    def _referred(self, reference: Any) -> Any:
        """The part of the schema that a reference names; what is not there allows anything."""
        found: Any = self._root
        for name in str(reference).removeprefix("#/").split("/"):
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def _choices(self, schema: dict[str, Any], value: Any, path: str, depth: int) -> _Misfits:
        if "const" in schema and schema["const"] != value:
            yield path, f"expected {_shown(schema['const'])}, not {_shown(value)}"
        choices = schema.get("enum")
        self._spend(len(_items(choices)) // _CHECKS_PER_VALUE)
        if isinstance(choices, list) and value not in choices:
            yield path, f"expected {in_words(schema)}, not {_shown(value)}"
        for word in ("anyOf", "oneOf"):
            members = schema.get(word)
            if isinstance(members, list):
                yield from self._any_of(members, value, path, depth)
        for member in _items(schema.get("allOf")):
            yield from self.misfits(member, value, path, depth + 1)

    def _any_of(self, members: list[Any], value: Any, path: str, depth: int) -> _Misfits:
        found: list[tuple[str, str]] = []
        for one in members:
            misfit = next(self.misfits(one, value, path, depth + 1), None)
            if misfit is None:
                return
            found.append(misfit)
        deepest = max(found, key=lambda one: len(one[0]), default=None)
        words = in_words({"anyOf": members})
        if deepest is not None and deepest[0] == path and words:
            yield path, f"expected {words}, not {_shown(value)}"
        elif deepest is not None:
            yield deepest

    def _object(
        self, schema: dict[str, Any], value: dict[str, Any], path: str, depth: int
    ) -> _Misfits:
        properties = _fields(schema.get("properties"))
        for name in _items(schema.get("required")):
            if isinstance(name, str) and name not in value:
                yield f"{path}.{name}", "it is missing"
        for name, one in value.items():
            place = f"{path}.{name}"
            yield from self._name(schema.get("propertyNames"), name, place, depth)
            if name in properties:
                yield from self.misfits(properties[name], one, place, depth + 1)
            else:
                yield from self._other(schema, name, one, place, depth)
        yield from _sizes(schema, len(value), path, "Properties", "fields")

    def _name(self, schema: Any, name: str, place: str, depth: int) -> _Misfits:
        if not isinstance(schema, dict):
            return
        found = [
            next(self.misfits(schema, one, "$", depth + 1), None) for one in key_readings(name)
        ]
        if found[0] is not None and None not in found:
            yield place, f"this name does not fit: {found[0][1]}"

    def _other(
        self, schema: dict[str, Any], name: str, value: Any, place: str, depth: int
    ) -> _Misfits:
        """Check a field that the schema does not name."""
        patterns = _fields(schema.get("patternProperties"))
        found = [inner for pattern, inner in patterns.items() if matches(pattern, name)]
        for inner in found:
            yield from self.misfits(inner, value, place, depth + 1)
        if found:
            return
        others = schema.get("additionalProperties", not patterns)
        if others is not False:
            yield from self.misfits(others, value, place, depth + 1)
        elif patterns:
            yield place, f"expected a name that matches {_shown(next(iter(patterns)))}"
        else:
            yield place, "there is no such field"

    def _list(self, schema: dict[str, Any], value: list[Any], path: str, depth: int) -> _Misfits:
        first = _items(schema.get("prefixItems"))
        for index, one in enumerate(value):
            item = first[index] if index < len(first) else schema.get("items")
            yield from self.misfits(item, one, f"{path}[{index}]", depth + 1)
        is_set = schema.get("uniqueItems") is True  # pydantic reads what is there twice, too
        size = len(set(map(_frozen, value))) if is_set else len(value)
        yield from _sizes(schema, size, path, "Items", "items")

    def _text(self, schema: dict[str, Any], value: str, path: str, depth: int) -> _Misfits:
        yield from _sizes(schema, len(value), path, "Length", "characters")
        pattern, form = schema.get("pattern"), schema.get("format")
        if isinstance(pattern, str) and not matches(pattern, value):
            yield path, f"expected a match of {_shown(pattern)}, not {_shown(value)}"
        if isinstance(form, str) and not has_form(form, value):
            yield path, f"expected a text of the format {form}, not {_shown(value)}"
        if schema.get("contentMediaType") == "application/json":
            try:
                inner = json.loads(value)
            except (ValueError, RecursionError):
                yield path, f"expected JSON in a string, not {_shown(value)}"
            else:
                yield from self.misfits(schema.get("contentSchema"), inner, path, depth + 1)


def _count(value: Any) -> int:
    """How many values there are in one, with itself."""
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def _frozen(value: Any) -> Any:
    """A value as a member of a set: what pydantic takes for equal is equal."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(one)) for name, one in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _sizes(schema: dict[str, Any], size: int, path: str, word: str, what: str) -> _Misfits:
    least, most = schema.get(f"min{word}"), schema.get(f"max{word}")
    if isinstance(least, int) and size < least:
        yield path, f"expected at least {least} {what}, not {size}"
    if isinstance(most, int) and size > most:
        yield path, f"expected at most {most} {what}, not {size}"


def _is_multiple(value: float, of: float) -> bool:
    """Whether a number is a multiple, as far as floats can tell: by the tolerance of pydantic."""
    if not of:
        return True
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    try:
        rest, tolerance = abs(math.fmod(value, of)), abs(value) / 1e9
    except (OverflowError, ValueError):  # beyond floats: the code that asks will decide
        return True
    return rest <= tolerance or abs(rest - abs(of)) <= tolerance


_BOUNDS: Final[tuple[tuple[str, str, Callable[[Any, Any], bool]], ...]] = (
    ("minimum", "at least", lambda value, bound: value >= bound),
    ("maximum", "at most", lambda value, bound: value <= bound),
    ("exclusiveMinimum", "more than", lambda value, bound: value > bound),
    ("exclusiveMaximum", "less than", lambda value, bound: value < bound),
    ("multipleOf", "a multiple of", _is_multiple),
)


def _number(schema: dict[str, Any], value: float, path: str) -> _Misfits:
    for keyword, words, fits in _BOUNDS:
        bound = schema.get(keyword)
        if isinstance(bound, int | float) and not fits(value, bound):
            yield path, f"expected {words} {bound}, not {value}"
