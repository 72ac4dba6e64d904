"""What a codec is: the two ways between a Python value and JSON-native values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from enum import IntEnum
from typing import Any, Final

__all__ = ["ALL_KINDS", "CLASS", "VALUE", "Codec", "Fit", "is_tagged", "json_kind"]

# A value whose class its annotation does not tell is written as an object of these two.
CLASS: Final = "$class"
VALUE: Final = "$value"

# Kinds of JSON values; integers and other numbers are told apart, as their readers do.
ALL_KINDS: Final = frozenset({"null", "bool", "int", "float", "string", "array", "object"})
_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    list: "array",
    dict: "object",
}


class Fit(IntEnum):
    """How well a value fits an annotation."""

    NONE = 0
    SUBCLASS = 1
    EXACT = 2


class Codec(ABC):
    """Writes and reads the values of one annotation.

    :ivar kinds: kinds of JSON values that it writes
    :ivar label: names it among the members of a union, as ``shop.Order`` or ``tuple``
    :ivar native: what it writes is what it was given: nothing has to be read back and compared
    :ivar scalars: classes whose objects are written as they are, whatever they say
    """

    kinds: frozenset[str] = ALL_KINDS
    label: str = ""
    native: bool = False
    scalars: frozenset[type] = frozenset()

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """The JSON-native form of a value.

        :raises NotStorableError: it has none, or the value is not what the annotation says
        """

    def takes_as_they_are(self, values: Collection[Any]) -> bool:
        """Whether all values are of classes that are written as they are: a quick look."""
        return self.scalars.issuperset(map(type, values))

    @abstractmethod
    def decode(self, data: Any) -> Any:
        """The value whose form this is. Runs no constructor and no validator of a user's class.

        :raises ValueError: no value of the annotation has this form
        """

    @abstractmethod
    def fit(self, value: Any) -> Fit:
        """How well a value fits the annotation."""

    def unfit(self) -> str | None:
        """Why no value can be stored, if the annotation alone tells; ``None`` if it does not."""
        return None


def json_kind(data: Any) -> str:
    """Which kind of JSON value this is."""
    return _KINDS[type(data)]


def is_tagged(data: Any) -> bool:
    """Whether a form names the class of its value."""
    return type(data) is dict and data.keys() == {CLASS, VALUE} and type(data[CLASS]) is str
