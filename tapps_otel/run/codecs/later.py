"""The codec of an annotation inside itself."""

from __future__ import annotations

from typing import Any

from tapps_otel.run.codecs.codec import Codec, Fit

__all__ = ["LaterCodec"]


class LaterCodec(Codec):
    """Stands for the codec of a recursive alias while that is made.

    :ivar codec: that one, once it is made
    """

    codec: Codec

    def __init__(self, label: str) -> None:
        self.label = label

    def encode(self, value: Any) -> Any:
        return self.codec.encode(value)

    def decode(self, data: Any) -> Any:
        return self.codec.decode(data)

    def fit(self, value: Any) -> Fit:
        return self.codec.fit(value)
