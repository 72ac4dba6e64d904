"""What can never come back, whatever the value."""

from __future__ import annotations

from typing import Any, NoReturn

from tapps_otel.run.codecs.codec import Codec, Fit
from tapps_otel.run.codecs.native import NotStorableError

__all__ = ["RefusedCodec"]


class RefusedCodec(Codec):
    """For annotations none of whose values can be stored.

    :param reason: why
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def encode(self, value: Any) -> NoReturn:
        raise NotStorableError(self._reason)

    def decode(self, data: Any) -> NoReturn:
        raise ValueError(self._reason)

    def fit(self, value: Any) -> Fit:
        return Fit.NONE

    def unfit(self) -> str:
        return self._reason
