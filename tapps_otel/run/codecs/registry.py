"""Codecs that users registered for their classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tapps_otel.run.codecs.codec import ALL_KINDS, Codec, Fit
from tapps_otel.run.codecs.native import NotStorableError, check_native, class_name

__all__ = ["RegisteredCodec", "add", "registered", "remove"]

_registered: Final[dict[type, RegisteredCodec]] = {}


class RegisteredCodec(Codec):
    """A class with two functions of its own: one writes JSON-native values, one reads them.

    :param name: of the class in the log, among the members of a union
    """

    def __init__(
        self,
        cls: type,
        encode: Callable[[Any], Any],
        decode: Callable[[Any], Any],
        name: str,
        kinds: frozenset[str] = ALL_KINDS,
    ) -> None:
        self._class, self._encode, self._decode = cls, encode, decode
        self.label, self.kinds = name, kinds

    def encode(self, value: Any) -> Any:
        if not isinstance(value, self._class):
            raise NotStorableError(
                f"{class_name(type(value))} does not match its annotation ({self.label})"
            )
        data = self._encode(value)
        check_native(data)
        return data

    def decode(self, data: Any) -> Any:
        return self._decode(data)

    def fit(self, value: Any) -> Fit:
        if type(value) is self._class:
            return Fit.EXACT
        return Fit.SUBCLASS if isinstance(value, self._class) else Fit.NONE


def add(cls: type, codec: RegisteredCodec) -> None:
    """Let objects of a class, and of its subclasses, be written by a codec."""
    _registered[cls] = codec


def remove(cls: type) -> None:
    """Undo :func:`add`."""
    _registered.pop(cls, None)


def registered(cls: type) -> RegisteredCodec | None:
    """The codec that was registered for a class or for its nearest base."""
    for base in getattr(cls, "__mro__", ()):
        if base in _registered:
            return _registered[base]
    return None
