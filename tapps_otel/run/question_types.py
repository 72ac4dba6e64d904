"""What may answer a question: a type, and its JSON Schema for the log. Pure.

Whoever answers need not have the code that asks, only its log: so the type is in the log as a
schema. The code that asks reads the answer by the type itself, which decides.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.errors import StepResultError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

__all__ = ["AnswerType"]

_LIMIT: Final = 64 * 1024  # bytes of a schema in the log


class AnswerType:
    """The type of a question's answers.

    :ivar schema: as JSON Schema; ``None`` if any answer fits, or if it is too large for the log
    :raises TypeError: answers of that type cannot be read from JSON
    """

    def __init__(self, kind: Any) -> None:
        self.schema: dict[str, Any] | None = None
        self._adapter: TypeAdapter[Any] | None = None
        if kind is not Any and kind is not object:
            self._adapter, schema = _adapter_of(kind)
            self.schema = schema if len(json.dumps(schema)) <= _LIMIT else None

    def read(self, data: bytes) -> Any:
        """The answer as a value of the type.

        :raises StepResultError: it does not fit
        """
        if self._adapter is None:
            return json.loads(data)
        try:
            return self._adapter.validate_json(data, strict=True)
        except ValueError as error:
            msg = f"the answer does not fit the type of its question (has it changed?): {error}"
            raise StepResultError(msg, "$") from error


def _adapter_of(kind: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    from pydantic import TypeAdapter  # heavy: not before the first question with a type
    from pydantic.errors import PydanticUserError

    try:
        adapter = TypeAdapter(kind)
        return adapter, adapter.json_schema(schema_generator=_generator())
    except (PydanticUserError, ValueError) as error:  # the latter by some classes in C
        msg = f"type={kind!r:.80}: an answer of this type cannot be read from JSON: {error}"
        raise TypeError(msg) from error


@lru_cache(1)
def _generator() -> type[GenerateJsonSchema]:
    """What writes schemas, with the types of all keys: pydantic leaves out those of numbers."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def dict_schema(self, schema: Any) -> dict[str, Any]:
            found = super().dict_schema(schema)
            choices = _choices(schema.get("keys_schema", {}))
            if choices is not None:
                # A name in JSON is text, which pydantic takes for no choice that is a number.
                found["propertyNames"] = {"enum": [one for one in choices if type(one) is str]}
            elif "keys_schema" in schema and not found.keys() & {
                "propertyNames",
                "patternProperties",
            }:
                names = self.generate_inner(schema["keys_schema"])
                if names not in ({}, {"type": "string"}):
                    found["propertyNames"] = names
            return found

    return Generator


def _choices(keys: Mapping[str, Any]) -> list[Any] | None:
    """The values that keys can have, if these are listed: by a literal, or by an enum.

    Those of an enum that is a number or a text are read as numbers or texts are.
    """
    if keys.get("type") == "literal":
        return list(keys["expected"])
    if keys.get("type") == "enum" and "sub_type" not in keys:
        return [member.value for member in keys["members"]]
    return None
