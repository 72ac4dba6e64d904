"""Classes whose objects are their fields: dataclasses, pydantic models, attrs classes.

An object is written as its fields, and made again from them without its constructor, its
``__post_init__`` and its validators: these have had their say when it was made the first time, and
what they changed would be changed twice.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any, Final, get_type_hints

__all__ = ["ABSENT", "Field", "Fields", "fields_of"]

ABSENT: Final = object()
_HASH: Final = "_attrs_cached_hash"  # of classes of attrs with cache_hash
_UNSET: Final = "$unset"  # no attribute can have this name in code


class Field:
    """One field of a class.

    :ivar hint: its annotation
    :ivar excluded: its class keeps it out of what is written
    """

    __slots__ = ("_default", "excluded", "hint", "name")

    def __init__(
        self, name: str, hint: Any, default: Any = ABSENT, *, excluded: bool = False
    ) -> None:
        self.name, self.hint, self._default, self.excluded = name, hint, default, excluded

    def default(self) -> Any:
        """What it is where a value was written before it existed; ``ABSENT`` for nothing."""
        return self._default() if callable(self._default) else self._default


class Fields:
    """The state of a class's objects, and how one is made of it.

    :ivar hints: the class's annotations by name
    """

    def __init__(self, cls: type, arguments: dict[Any, Any]) -> None:
        self._class, self._arguments = cls, arguments

    @cached_property
    def hints(self) -> dict[str, Any]:
        """:raises NameError: a name in one of them cannot be found"""
        found = get_type_hints(self._class, include_extras=True)
        return {name: _substituted(hint, self._arguments) for name, hint in found.items()}

    @cached_property
    def declared(self) -> dict[str, Field]:
        """The fields by name."""
        raise NotImplementedError

    def read(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values of the fields that are set, and of attributes that are not declared."""
        declared = self.declared
        fields = {
            name: found
            for name in declared
            if (found := getattr(value, name, ABSENT)) is not ABSENT
        }
        more = {
            name: found
            for name, found in getattr(value, "__dict__", {}).items()
            if name not in declared and not self._derived(name)
        }
        for name in self._slots:
            if name not in declared and (found := getattr(value, name, ABSENT)) is not ABSENT:
                more[name] = found
        if _HASH in more:
            more[_HASH] = None  # it is another one in another process
        return fields, more

    @cached_property
    def _slots(self) -> list[str]:
        """Names of the class's slots."""
        return [
            name
            for base in self._class.__mro__
            for name, member in vars(base).items()
            if isinstance(member, MemberDescriptorType) and not name.startswith("__")
        ]

    def _derived(self, name: str) -> bool:
        """Whether an attribute is a ``cached_property``: it can be computed again."""
        return isinstance(getattr(self._class, name, None), cached_property)

    def make(self, fields: dict[str, Any], more: dict[str, Any]) -> Any:
        """An object with these values."""
        made: Any = object.__new__(self._class)
        for name, value in (fields | more).items():
            object.__setattr__(made, name, value)
        return made


class _DataclassFields(Fields):
    @cached_property
    def declared(self) -> dict[str, Field]:
        found = {}
        for field in dataclasses.fields(self._class):
            default: Any = ABSENT
            if field.default is not dataclasses.MISSING:
                default = _constant(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                default = field.default_factory
            found[field.name] = Field(field.name, self.hints.get(field.name, Any), default)
        return found


class _AttrsFields(Fields):
    @cached_property
    def declared(self) -> dict[str, Field]:
        return {
            field.name: Field(
                field.name,
                self.hints.get(field.name, Any if field.type is None else field.type),
                _attrs_default(field.default),
            )
            for field in self._class.__attrs_attrs__  # type: ignore[attr-defined]
        }


class _ModelFields(Fields):
    """Of pydantic: with private attributes, extra ones, and which fields were set."""

    _OWN: Final = ("__pydantic_extra__", "__pydantic_private__")

    @cached_property
    def declared(self) -> dict[str, Field]:
        return {
            name: Field(
                name,
                info.annotation,
                lambda info=info: (
                    ABSENT if info.is_required() else info.get_default(call_default_factory=True)
                ),
                excluded=bool(info.exclude),
            )
            for name, info in self._class.__pydantic_fields__.items()  # type: ignore[attr-defined]
        }

    def read(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        fields, more = super().read(value)
        for name in self._OWN:
            if part := getattr(value, name, None):
                more[name] = dict(part)
        unset = sorted(fields.keys() - value.__pydantic_fields_set__)
        if unset:
            more[_UNSET] = unset
        return fields, more

    def make(self, fields: dict[str, Any], more: dict[str, Any]) -> Any:
        made: Any = object.__new__(self._class)
        unset = set(more.pop(_UNSET, ()))
        own = {name: more.pop(name, None) for name in self._OWN}
        if own["__pydantic_extra__"] is None and self._class.model_config.get("extra") == "allow":  # type: ignore[attr-defined]
            own["__pydantic_extra__"] = {}
        if own["__pydantic_private__"] is None and self._class.__private_attributes__:  # type: ignore[attr-defined]
            own["__pydantic_private__"] = {}
        object.__setattr__(made, "__dict__", fields | more)
        known = fields.keys() | (own["__pydantic_extra__"] or {}).keys()
        object.__setattr__(made, "__pydantic_fields_set__", known - unset)
        for name, part in own.items():
            if part is not None or not hasattr(made, name):  # a root model has them in its class
                object.__setattr__(made, name, part)
        return made


def fields_of(cls: type, arguments: tuple[tuple[Any, Any], ...] = ()) -> Fields | None:
    """The fields of a class whose objects are nothing else; ``None`` for any other class.

    :param arguments: of a generic class: its type variables, each with what it stands for
    """
    return _fields_of(cls, arguments)


@lru_cache(maxsize=1024)  # bounded: a class that a function defines is not kept for ever
def _fields_of(cls: type, arguments: tuple[tuple[Any, Any], ...]) -> Fields | None:
    if hasattr(cls, "__pydantic_fields__") and hasattr(cls, "__pydantic_fields_set__"):
        return _ModelFields(cls, dict(arguments))
    if not _is_made_of_python(cls):
        return None
    if dataclasses.is_dataclass(cls):
        return _DataclassFields(cls, dict(arguments))
    if hasattr(cls, "__attrs_attrs__"):
        return _AttrsFields(cls, dict(arguments))
    return None


def _is_made_of_python(cls: type) -> bool:
    """Whether an object of it has no state but its attributes: no base written in C."""
    try:
        object.__new__(cls)
    except TypeError:  # of a built-in base, or abstract
        return bool(getattr(cls, "__abstractmethods__", None))
    return True


def _constant(value: Any) -> Any:
    return lambda: value


def _attrs_default(default: Any) -> Any:
    if default is None or type(default).__name__ == "_Nothing" or repr(default) == "NOTHING":
        return ABSENT if default is not None else _constant(None)
    factory = getattr(default, "factory", None)
    if factory is None:
        return _constant(default)
    return ABSENT if getattr(default, "takes_self", False) else factory


def _substituted(hint: Any, arguments: dict[Any, Any]) -> Any:
    """An annotation with a generic class's type variables replaced."""
    if not arguments:
        return hint
    try:
        if hint in arguments:
            return arguments[hint]
    except TypeError:
        return hint
    parameters = getattr(hint, "__parameters__", ())
    if not parameters:
        return hint
    return hint[tuple(arguments.get(parameter, parameter) for parameter in parameters)]
