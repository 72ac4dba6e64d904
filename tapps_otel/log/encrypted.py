"""Encrypted values of events: hidden in the line that is written, decrypted once it was read.

What an event hides is one JSON object, encrypted as a whole and bound to the place of the event:
its inputs and their digest, its result, the names of its blobs, and of its error whatever spans do
not have either. The hash chain is over the lines as they are, so that it is verified without a
key. In memory an event keeps its values; only its line lacks them. When they are encrypted is
decided by :mod:`tapps_otel.log.cipher`.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tapps_otel.encryption import key_id_of
from tapps_otel.errors import CodecError, DecryptionError, EncryptionKeyError
from tapps_otel.log.event import Encrypted, Event, decode_as, encode, json_of
from tapps_otel.redact import rules_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.encryption import Codec

__all__ = [
    "CHANGED",
    "CodecFailedError",
    "Decryption",
    "context_of",
    "decrypt_data",
    "decrypt_event",
    "decrypting",
    "encrypt_data",
    "encrypted_values",
    "hidden_values",
    "json_of_values",
    "line_of",
    "locked_error",
    "problem_of",
]

# Why something cannot be decrypted.
NO_KEY: Final = "this key is not configured"
CHANGED: Final = "it was changed, or encrypted with another key of this id"
_KINDS: Final = {NO_KEY: EncryptionKeyError, CHANGED: DecryptionError}
_ROTATIONS: Final = 5  # how often a key may change while one value is encrypted
# What spans have of an error, under the rules of redaction. The rest is for handlers.
_ERROR_ON_SPANS: Final = frozenset({"type", "message", "bases", "stack"})


class CodecFailedError(OSError):
    """A codec could not encrypt: the log cannot be written now."""


class Decryption(Encrypted):
    """The encrypted values of an event in memory, and what came of decrypting them.

    :ivar problem: why the event lacks the values; empty if it has them
    """

    problem: str


class _Values(Struct):
    """What an event hides."""

    inputs: Raw | UnsetType = UNSET
    inputs_blob: str | UnsetType = UNSET
    inputs_digest: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    result_blob: str | UnsetType = UNSET
    error: dict[str, Any] | UnsetType = UNSET


_MOVED: Final = ("inputs", "inputs_digest", "result")
_BOUND: Final = ("inputs_blob", "result_blob")  # in the line, too: blobs are verified without a key
_values_decoder: Final = msgspec.json.Decoder(_Values)


# -- writing


def hidden_values(event: Event) -> dict[str, Any]:
    """Return what an event hides; empty for nothing."""
    hidden = {
        name: value for name in _MOVED + _BOUND if (value := getattr(event, name)) is not UNSET
    }
    if event.error is not UNSET and (names := event.error.keys() - _ERROR_ON_SPANS):
        hidden["error"] = {name: event.error[name] for name in names}
    return hidden


def encrypted_values(event: Event, hidden: dict[str, Any], codec: Codec) -> Decryption:
    """Encrypt what an event hides.

    :raises CodecFailedError: the codec failed
    :raises TypeError: a value is not of a JSON type
    """
    key_id, data = encrypt_data(json_of_values(hidden), codec, _place_of(event))
    return Decryption(key_id, data, problem="")


def json_of_values(hidden: dict[str, Any]) -> bytes:
    """Encode what an event hides.

    :raises TypeError: a value is not of a JSON type
    """
    return json_of(_Values(**hidden))


def line_of(event: Event, previous: bytes) -> tuple[bytes, bytes]:
    """Return the line of an event that is encrypted or hides nothing, and its ``sha``."""
    encrypted = event.encrypted
    if encrypted is UNSET:
        return encode(event, previous)
    shown = copy(event)
    shown.encrypted = Encrypted(encrypted.key, encrypted.data)
    shown.inputs = shown.inputs_digest = shown.result = UNSET
    if event.error is not UNSET:
        shown.error = {name: one for name, one in event.error.items() if name in _ERROR_ON_SPANS}
    return encode(shown, previous)


def encrypt_data(data: bytes, codec: Codec, context: bytes) -> tuple[str, bytes]:
    """Encrypt data; return the id of the key, and the ciphertext.

    :raises CodecFailedError: the codec failed, or returned what cannot be stored
    """
    try:
        for _ in range(_ROTATIONS):
            key_id = key_id_of(codec)
            encrypted: object = codec.encode(data, context)
            if key_id_of(codec) == key_id:  # otherwise it is unknown which key was used
                return key_id, _as_bytes(encrypted)
        raise RuntimeError("its key_id changes all the time")
    except Exception as error:
        raise CodecFailedError(f"the codec cannot encrypt: {_described(error)}") from error


def _as_bytes(encrypted: object) -> bytes:
    if isinstance(encrypted, bytes | bytearray | memoryview):
        return bytes(encrypted)
    raise TypeError(f"its encode() returned {type(encrypted).__name__}, not bytes")


# -- reading


def decrypting(feed: Callable[[Event], None], codec: Codec | None) -> Callable[[Event], None]:
    """Return a ``feed`` whose events are decrypted, as far as that is possible."""
    if codec is None:
        return feed

    def feed_decrypted(event: Event) -> None:
        decrypt_event(event, codec)
        feed(event)

    return feed_decrypted


def decrypt_event(event: Event, codec: Codec | None) -> None:
    """Give an event that was read the values that it hides, or the reason why it lacks them."""
    encrypted = event.encrypted
    if encrypted is not UNSET:
        key_id, data = encrypted.key, encrypted.data
        found = decrypt_data(data, key_id, codec, _place_of(event))
        problem = found if isinstance(found, str) else _fill(event, found)
        event.encrypted = Decryption(key_id, data, problem)


def _fill(event: Event, data: bytes) -> str:
    """Give an event its values; return what is wrong with them, which is empty for nothing."""
    try:
        values = decode_as(data, _values_decoder)
    except ValueError:
        return CHANGED
    if any(getattr(values, name) != getattr(event, name) for name in _BOUND):
        return CHANGED
    for name in _MOVED:
        setattr(event, name, getattr(values, name))
    if values.error is not UNSET:
        shown = {} if event.error is UNSET else event.error
        event.error = {**shown, **values.error}
    return ""


def decrypt_data(data: bytes, key_id: str, codec: Codec | None, context: bytes) -> bytes | str:
    """Decrypt data, or return why that is not possible."""
    if codec is None:
        return NO_KEY
    try:
        return codec.decode(data, context, key_id)
    except LookupError:
        return NO_KEY
    except ValueError:
        return CHANGED
    except Exception as error:  # noqa: BLE001 - whatever a user's codec raises
        return f"the codec failed: {_described(error)}"


def problem_of(encrypted: Encrypted) -> str:
    """Return why an event lacks these values, which is empty if it has them."""
    return encrypted.problem if isinstance(encrypted, Decryption) else NO_KEY


def locked_error(workflow_id: str, place: str, key_id: str, problem: str) -> DecryptionError:
    """Return the error of a value that cannot be decrypted.

    :param place: the event that has it, or the blob
    :param problem: why it cannot
    """
    kind = _KINDS.get(problem, CodecError)
    return kind(workflow_id, place, key_id, problem)


# -- where a value is: its ciphertext is valid nowhere else


def context_of(*parts: object) -> bytes:
    """Return the bytes that identify a place: of each part, its length in bytes and its text."""
    texts = [*map(str, parts)]
    joined = "".join([f"{len(text)}:{text}" for text in texts])
    if joined.isascii():  # three times as fast, for nearly all places
        return joined.encode()
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(b"%d:%b" % (len(text), text) for text in encoded)


def _place_of(event: Event) -> bytes:
    return context_of(
        event.workflow_id,
        event.event_type,
        event.timestamp,
        event.execution,
        "" if event.step_id is UNSET else event.step_id,
        "" if event.attempt is UNSET else event.attempt,
    )


def _described(error: Exception) -> str:
    return rules_here().text(f"{type(error).__name__}: {error}")
