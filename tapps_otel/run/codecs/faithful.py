"""Writing a value so that it comes back equal and of the same class, or refusing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapps_otel.run.codecs.comparison import first_difference
from tapps_otel.run.codecs.compiler import codec_of
from tapps_otel.run.codecs.native import (
    MAX_DEPTH,
    NotStorableError,
    encode_native,
    from_json,
    to_json,
)

if TYPE_CHECKING:
    from tapps_otel.run.codecs.codec import Codec

__all__ = ["Faithful", "faithful"]


class Faithful:
    """Writes and reads values by a codec, and compares what it wrote.

    :ivar unfit: why no value can be stored, if that is known without one
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.unfit = codec.unfit()

    def write(self, value: Any) -> bytes:
        """JSON of a value, which :meth:`read` turns into the same value.

        :raises NotStorableError: it cannot be stored, or would come back different; nothing else,
            whatever a class of the user's does when it is looked at
        """
        codec = self._codec
        try:
            if type(value) in codec.scalars:
                return encode_native(value)
            form = codec.encode(value)
            if codec.native:
                return encode_native(form)
            data = to_json(form)
            found = first_difference(value, codec.decode(from_json(data)))
        except NotStorableError:
            raise
        except RecursionError:
            raise NotStorableError(f"nested deeper than {MAX_DEPTH} levels") from None
        except Exception as error:
            raise NotStorableError(f"{type(error).__name__}: {error}") from error
        if found:
            path, problem = found
            raise NotStorableError(problem, path)
        return data

    def read(self, data: bytes) -> Any:
        """The value that :meth:`write` wrote.

        :raises ValueError: it does not fit the annotation
        """
        try:
            return self._codec.decode(from_json(data))
        except ValueError:
            raise
        except Exception as error:
            msg = f"{type(error).__name__}: {error}"
            raise ValueError(msg) from error


def faithful(annotation: Any) -> Faithful:
    """What writes and reads the values of an annotation."""
    return Faithful(codec_of(annotation))
