"""Codecs of typed dicts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, get_type_hints

from tapps_otel.run.codecs.codec import Codec, Fit
from tapps_otel.run.codecs.native import NotStorableError, class_name

__all__ = ["TypedDictCodec"]


class TypedDictCodec(Codec):
    """A dict whose keys have annotations of their own."""

    kinds = frozenset({"object"})

    def __init__(self, cls: type, codec_of: Callable[[Any], Codec]) -> None:
        self._class, self._codec_of = cls, codec_of
        self.label = class_name(cls)

    @cached_property
    def _codecs(self) -> dict[str, Codec]:
        hints = get_type_hints(self._class, include_extras=True)
        return {name: self._codec_of(hint) for name, hint in hints.items()}

    def encode(self, value: Any) -> Any:
        if type(value) is not dict:
            raise NotStorableError(
                f"{class_name(type(value))} does not match its annotation ({self.label})"
            )
        data = {}
        for key, item in value.items():
            codec = self._codecs.get(key)
            if codec is None:
                raise NotStorableError(f"{self.label} has no key {key!r:.80}")
            try:
                data[key] = codec.encode(item)
            except NotStorableError as error:
                raise error.inside(f".{key}") from None
        return data

    def decode(self, data: Any) -> Any:
        unknown = data.keys() - self._codecs.keys() if type(data) is dict else {"?"}
        if unknown:
            msg = f"{self.label} has no key {min(unknown)!r:.80}"
            raise ValueError(msg)
        return {key: self._codecs[key].decode(item) for key, item in data.items()}

    def fit(self, value: Any) -> Fit:
        return Fit.EXACT if type(value) is dict else Fit.NONE

    def unfit(self) -> str | None:
        # Only what is certain without walking into a dict of itself: its keys are looked at once.
        codecs, self.__dict__["_codecs"] = self._codecs, {}
        try:
            return next(filter(None, (codec.unfit() for codec in codecs.values())), None)
        finally:
            self.__dict__["_codecs"] = codecs
