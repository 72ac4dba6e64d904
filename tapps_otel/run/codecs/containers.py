"""Codecs of the containers of the standard library."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, Final

from tapps_otel.run.codecs.codec import Codec, Fit
from tapps_otel.run.codecs.native import NotStorableError, class_name, to_json

__all__ = ["DequeCodec", "DictCodec", "FixedTupleCodec", "ItemsCodec"]

_MAXLEN: Final = "$maxlen"
_ITEMS: Final = "$items"
_WITHOUT_ATTRIBUTES: Final = frozenset({list, dict, tuple, set, frozenset})


class _Container(Codec):
    """A container of one class: an instance of a subclass would come back as another."""

    kind: type

    def check(self, value: Any) -> None:
        if type(value) is not self.kind:
            raise NotStorableError(
                f"{class_name(type(value))} does not match its annotation ({class_name(self.kind)})"
            )
        if self.kind not in _WITHOUT_ATTRIBUTES and (more := getattr(value, "__dict__", None)):
            raise NotStorableError(
                f"{class_name(self.kind)} with attributes of its own: {', '.join(more)}"
            )

    def fit(self, value: Any) -> Fit:
        return Fit.EXACT if type(value) is self.kind else Fit.NONE


class ItemsCodec(_Container):
    """For lists, tuples of any length, sets and frozen sets."""

    kinds = frozenset({"array"})

    def __init__(self, kind: type, item: Codec) -> None:
        self.kind, self._item = kind, item
        self.label = class_name(kind)
        self.native = kind is list and item.native
        self._unordered = kind in {set, frozenset}

    def encode(self, value: Any) -> Any:
        self.check(value)
        if self._item.takes_as_they_are(value):
            data = value if self.native else list(value)
        else:
            data = _encode_items(value, self._item)
        return sorted(data, key=to_json) if self._unordered else data

    def decode(self, data: Any) -> Any:
        return self.kind(map(self._item.decode, _array(data, self.label)))

    def unfit(self) -> str | None:
        return self._item.unfit()


class DequeCodec(ItemsCodec):
    """For deques, with their bound."""

    kinds = frozenset({"array", "object"})

    def __init__(self, item: Codec) -> None:
        super().__init__(deque, item)

    def encode(self, value: Any) -> Any:
        items = super().encode(value)
        return items if value.maxlen is None else {_MAXLEN: value.maxlen, _ITEMS: items}

    def decode(self, data: Any) -> Any:
        if type(data) is dict and data.keys() == {_MAXLEN, _ITEMS}:
            return deque(super().decode(data[_ITEMS]), data[_MAXLEN])
        return super().decode(data)


class FixedTupleCodec(_Container):
    """For tuples of known length, and for named tuples."""

    kinds = frozenset({"array"})

    def __init__(self, items: list[Codec], kind: type = tuple) -> None:
        self.kind, self._items = kind, items
        self.label = class_name(kind)

    def encode(self, value: Any) -> Any:
        self.check(value)
        if len(value) != len(self._items):
            raise NotStorableError(
                f"a tuple of {len(value)} does not match its annotation ({len(self._items)})"
            )
        data = []
        for index, (codec, item) in enumerate(zip(self._items, value, strict=True)):
            try:
                data.append(codec.encode(item))
            except NotStorableError as error:
                raise error.inside(f"[{index}]") from None
        return data

    def decode(self, data: Any) -> Any:
        found = _array(data, self.label)
        if len(found) != len(self._items):
            msg = f"{len(found)} items, where {self.label} has {len(self._items)}"
            raise ValueError(msg)
        items = (codec.decode(one) for codec, one in zip(self._items, found, strict=True))
        return tuple.__new__(self.kind, items)

    def unfit(self) -> str | None:
        return next(filter(None, (codec.unfit() for codec in self._items)), None)


class DictCodec(_Container):
    """For dicts and their kin; with keys that are not strings they are written as pairs.

    :param make: makes an empty one
    """

    def __init__(self, kind: type, key: Codec, value: Codec, default: type | None = None) -> None:
        self.kind, self._key, self._value, self._default = kind, key, value, default
        self.label = class_name(kind)
        self._pairs = key.kinds != {"string"} or not key.native
        self.kinds = frozenset({"array", "object"}) if self._pairs else frozenset({"object"})
        self.native = kind is dict and not self._pairs and value.native

    def encode(self, value: Any) -> Any:
        self.check(value)
        if self.native and self._takes_as_it_is(value):
            return value
        pairs = []
        for key, item in value.items():
            try:
                pairs.append([self._key.encode(key), self._value.encode(item)])
            except NotStorableError as error:
                raise error.inside(f"[{key!r:.40}]" if self._pairs else f".{key}") from None
        return pairs if self._pairs else dict(pairs)

    def decode(self, data: Any) -> Any:
        made = self._make()
        if type(data) is dict:
            for key, item in data.items():
                made[self._key_of(key)] = self._value.decode(item)
            return made
        for pair in _array(data, self.label):
            key, item = _array(pair, "a pair")
            made[self._key.decode(key)] = self._value.decode(item)
        return made

    def _takes_as_it_is(self, value: dict[Any, Any]) -> bool:
        return self._key.takes_as_they_are(value) and self._value.takes_as_they_are(value.values())

    def _make(self) -> Any:
        return defaultdict(self._default) if self.kind is defaultdict else self.kind()

    def _key_of(self, text: str) -> Any:
        """A key as an object has it: logs of older versions have integers so, too."""
        try:
            return self._key.decode(text)
        except ValueError:
            return self._key.decode(int(text))

    def unfit(self) -> str | None:
        return self._key.unfit() or self._value.unfit()


def _encode_items(value: Any, codec: Codec) -> list[Any]:
    data = []
    for index, item in enumerate(value):
        try:
            data.append(codec.encode(item))
        except NotStorableError as error:
            raise error.inside(f"[{index}]") from None
    return data


def _array(data: Any, what: str) -> list[Any]:
    if type(data) is not list:
        msg = f"{data!r:.80} is not {what}"
        raise ValueError(msg)
    return data
