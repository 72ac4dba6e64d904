"""Encrypts the values of events before they are written, while the log's lock is free.

A codec may be slow, or wait for another thread that writes to this log. It is called by
:meth:`Cipher.hide`; :meth:`Cipher.encode`, which makes the line, calls nothing of the user's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET, Raw, Struct

from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.encrypted import (
    CodecFailedError,
    encrypted_values,
    hidden_values,
    json_of_values,
    line_of,
)

if TYPE_CHECKING:
    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.encrypted import Decryption
    from tapps_otel.log.event import Event

__all__ = ["Cipher", "Hidden", "cipher_of"]

_BLOB_FIELDS: Final = {"inputs": "inputs_blob", "result": "result_blob"}


class Hidden(Struct):
    """What an event hides, encrypted.

    :ivar blobs: names of the blobs of its large values, by the fields of the values
    """

    encrypted: Decryption
    blobs: dict[str, str]

    def put(self, event: Event) -> None:
        """Give it to its event, once: a line that is encoded again must not differ."""
        if event.encrypted is not UNSET:
            return
        for field, name in self.blobs.items():
            setattr(event, _BLOB_FIELDS[field], name)
            setattr(event, field, UNSET)
        event.encrypted = self.encrypted  # last: until then, the event counts as not encrypted


class Cipher:
    """Makes lines of events, whose values are encrypted.

    :param blobs: of the run, with its codec
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._problem = "its values are not encrypted yet"

    def hide(self, event: Event) -> Hidden | None:
        """Encrypt what an event hides; ``None`` if that is nothing, or was done.

        A value is large here only if the codec failed when it was to become a blob.

        :raises CodecFailedError: the codec failed, or a blob cannot be stored
        """
        if event.encrypted is not UNSET:
            return None
        try:
            blobs = {
                field: self._blobs.put_value(bytes(value))
                for field in _BLOB_FIELDS
                if isinstance(value := getattr(event, field), Raw) and len(value) > INLINE_LIMIT
            }
            hidden = hidden_values(event)
            for field, name in blobs.items():
                hidden[_BLOB_FIELDS[field]] = name
                del hidden[field]
            if not hidden or self._blobs.codec is None:
                return None
            return Hidden(encrypted_values(event, hidden, self._blobs.codec), blobs)
        except CodecFailedError as error:
            self._problem = str(error)
            raise
        except OSError as error:
            self._problem = f"a large value cannot be stored: {error}"
            raise CodecFailedError(self._problem) from error

    def encode(self, event: Event, previous: bytes) -> tuple[bytes, bytes]:
        """Return an event's line and its ``sha``, chained to that of the ``previous`` line.

        :raises CodecFailedError: it is not encrypted yet
        :raises TypeError: a value is not of a JSON type
        """
        if event.encrypted is UNSET and (hidden := hidden_values(event)):
            json_of_values(hidden)  # if that fails, the event is at fault and not the codec
            raise CodecFailedError(self._problem)
        return line_of(event, previous)

    def line(self, event: Event, previous: bytes) -> tuple[bytes, bytes]:
        """Encrypt what an event hides, and return its line, as :meth:`encode` does.

        :raises CodecFailedError: as :meth:`hide`
        """
        hidden = self.hide(event)
        if hidden is not None:
            hidden.put(event)
        return line_of(event, previous)


def cipher_of(blobs: Blobs) -> Cipher | None:
    """Return what encrypts the events of a run; ``None`` without a codec."""
    return None if blobs.codec is None else Cipher(blobs)
