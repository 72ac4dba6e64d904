"""Codecs of scalars, of enums, and of annotations that say nothing."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from enum import Enum
from typing import Any, Final

from tapps_otel.run.codecs.codec import Codec, Fit, json_kind
from tapps_otel.run.codecs.native import NotStorableError, check_native, class_name

__all__ = ["EnumCodec", "FreeCodec", "ScalarCodec", "scalar_codec"]

_KIND_OF: Final[dict[type, str]] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    type(None): "null",
}
# What an annotation admits beside its own class, as type checkers see it (PEP 484).
_ADMITS: Final[dict[type, frozenset[type]]] = {
    bool: frozenset({bool}),
    int: frozenset({int, bool}),
    float: frozenset({float, int}),
    str: frozenset({str}),
    type(None): frozenset({type(None)}),
}


_AS_IT_IS: Final[frozenset[type]] = frozenset({str, int, bool, type(None)})  # a float may be a NaN


class FreeCodec(Codec):
    """For ``Any``, ``object`` and no annotation: JSON-native values, which speak for themselves.

    :param kind: ``list`` or ``dict``, for one that may hold any such values
    :ivar any: no kind was given
    """

    native = True

    def __init__(self, kind: type | None = None) -> None:
        self._kind, self.any = kind, kind is None
        self.label = "object" if kind is None else class_name(kind)
        if kind is None:
            self.scalars = _AS_IT_IS
        else:
            self.kinds = frozenset({"array" if kind is list else "object"})

    def encode(self, value: Any) -> Any:
        if self._kind is not None and type(value) is not self._kind:
            raise NotStorableError(f"{class_name(type(value))} does not match its annotation")
        check_native(value)
        return value

    def decode(self, data: Any) -> Any:
        if self._kind is not None and type(data) is not self._kind:
            msg = f"{data!r:.80} is not {self.label}"
            raise ValueError(msg)
        return data

    def fit(self, value: Any) -> Fit:
        if self._kind is not None:
            return Fit.EXACT if type(value) is self._kind else Fit.NONE
        try:
            check_native(value)
        except NotStorableError:
            return Fit.NONE
        return Fit.SUBCLASS


class ScalarCodec(Codec):
    """For ``str``, ``int``, ``float``, ``bool``, ``None``, and unions of them.

    A value of a subclass (a string enum, a scalar of numpy's) is written as the scalar that it is,
    and comes back as one.
    """

    native = True

    def __init__(self, classes: frozenset[type]) -> None:
        self._classes = classes
        self._admits = frozenset().union(*(_ADMITS[kind] for kind in classes))
        self.scalars = self._admits & _AS_IT_IS
        self.kinds = frozenset(_KIND_OF[kind] for kind in self._admits)
        self.label = "|".join(sorted(class_name(kind) for kind in classes))

    def merged(self, other: ScalarCodec) -> ScalarCodec:
        """For the union of both."""
        return ScalarCodec(self._classes | other._classes)

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind not in self._admits:
            value = self._as_scalar(value)
            kind = type(value)
        if kind is float and not math.isfinite(value):
            raise NotStorableError(f"{value} does not exist in JSON")
        return value

    def takes_as_they_are(self, values: Collection[Any]) -> bool:
        kinds = set(map(type, values))
        if kinds == {float}:
            return float in self._admits and all(map(math.isfinite, values))
        return kinds <= self.scalars

    def _as_scalar(self, value: Any) -> Any:
        for kind in (bool, int, float, str):
            if kind in self._admits and (scalar := _scalar(value, kind)) is not None:
                return scalar
        raise NotStorableError(f"{class_name(type(value))} does not match its annotation")

    def decode(self, data: Any) -> Any:
        if json_kind(data) not in self.kinds:
            msg = f"{data!r:.80} is not {self.label}"
            raise ValueError(msg)
        return data

    def fit(self, value: Any) -> Fit:
        if type(value) in self._admits:
            return Fit.EXACT
        found = any(_scalar(value, kind) is not None for kind in self._admits)
        return Fit.SUBCLASS if found else Fit.NONE


def _scalar(value: Any, kind: type) -> Any:
    """The scalar of this kind that a value of a subclass is; ``None`` if it is none."""
    if kind is bool:
        # numpy's is no subclass, for bool has none; its item() is the plain one.
        found = value.item() if type(value).__module__ == "numpy" else None
        return found if type(found) is bool else None
    if kind is str:
        return str.__str__(value) if isinstance(value, str) else None
    if kind is float:
        return float.__float__(value) if isinstance(value, float) else None
    if kind is int and not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            return None
    return None


_scalars: dict[type, ScalarCodec] = {}


def scalar_codec(kind: type) -> ScalarCodec:
    """The codec of one of JSON's own scalar classes."""
    return _scalars.setdefault(kind, ScalarCodec(frozenset({kind})))


class EnumCodec(Codec):
    """For enums: written as their value where that is a scalar of JSON's, else as their name."""

    def __init__(self, kind: type[Enum]) -> None:
        self._enum = kind
        self.label = class_name(kind)
        values = [member.value for member in kind]
        self._by_value = all(type(value) in _KIND_OF for value in values)
        self.kinds = (
            frozenset(_KIND_OF[type(value)] for value in values)
            if self._by_value
            else frozenset({"string"})
        )

    def encode(self, value: Any) -> Any:
        if type(value) is not self._enum:
            raise NotStorableError(f"{class_name(type(value))} does not match its annotation")
        if self._by_value:
            return value.value
        if value.name is None:
            raise NotStorableError(f"{value!r:.80} has no name")
        return value.name

    def decode(self, data: Any) -> Any:
        if self._by_value:
            return self._enum(data)
        try:
            return self._enum[data]
        except KeyError:
            msg = f"{data!r:.80} is not a name of {self.label}"
            raise ValueError(msg) from None

    def fit(self, value: Any) -> Fit:
        return Fit.EXACT if type(value) is self._enum else Fit.NONE
