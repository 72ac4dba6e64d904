"""Exceptions of other libraries whose state is neither in their args nor in their attributes."""

from __future__ import annotations

from typing import Any, Final

from tapps_otel.run.codecs.native import class_name
from tapps_otel.run.failures.exception_parts import set_args

__all__ = ["is_only_shown", "make", "state_of"]

_VALIDATION: Final = "pydantic_core._pydantic_core.ValidationError"


def is_only_shown(error: BaseException, name: str) -> bool:
    """Whether an attribute is there for tracebacks alone, which suggest names from it."""
    return name == "obj" and isinstance(error, AttributeError)


def state_of(error: Any) -> dict[str, Any] | None:
    """The state of an exception that only its own class can set; ``None`` for nearly all."""
    if class_name(type(error)) != _VALIDATION:
        return None
    return {"title": error.title, "errors": error.errors(include_url=False)}


def make(kind: Any, state: dict[str, Any]) -> BaseException | None:
    """An exception with this state; ``None`` if the class is not one of these."""
    if class_name(kind) != _VALIDATION:
        return None
    errors = [_line_error(one) for one in state["errors"]]
    made: BaseException = kind.from_exception_data(state["title"], errors)
    set_args(made, ())  # as pydantic's own are
    return made


def _line_error(one: dict[str, Any]) -> dict[str, Any]:
    """One error of a validation, as pydantic takes it."""
    from typing import get_args

    from pydantic_core import PydanticCustomError
    from pydantic_core.core_schema import ErrorType

    if one["type"] in get_args(ErrorType):
        return one
    return {**one, "type": PydanticCustomError(one["type"], one["msg"], one.get("ctx"))}
