"""Encryption of what logs store: what a codec is, and one that uses AES-GCM."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from tapps_otel.errors import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["AesGcmCodec", "Codec", "key_id_of", "parse_keys"]

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # 96 bits, for which AES-GCM is defined
_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST_ID: Final = 256
_FORM: Final = "ID:KEY, where KEY is the base64 of 32 random bytes (openssl rand -base64 32)"


@runtime_checkable
class Codec(Protocol):
    """Encrypts the values of runs before they are stored, and decrypts them.

    Its methods are called by all threads that execute steps, also those of event loops, while the
    log's lock is free: they may wait for another thread. They must not call steps.
    """

    @property
    def key_id(self) -> str:
        """Names the key that :meth:`encode` uses now; it is stored in plain text.

        1 to 256 printable characters without spaces. It is read before and after each
        :meth:`encode`: if it changed in between, the data is encrypted once more.
        """

    def encode(self, data: bytes, context: bytes) -> bytes:
        """Encrypt ``data``.

        What it raises, and what it returns besides bytes, counts as a failure to write the log: the
        event waits in memory with its values, large ones too, and is encrypted and written later.

        :param context: identifies the place of the data in its run; the same bytes are given to
            :meth:`decode`, which must refuse the data for any other context
        """

    def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
        """Decrypt what :meth:`encode` returned.

        :param key_id: the :attr:`key_id` at that time
        :raises LookupError: there is no such key here
        :raises ValueError: the data was changed, or belongs to another key or context
        """


def key_id_of(codec: Codec) -> str:
    """Return the id of the key that a codec uses now.

    :raises ValueError: it has no valid one; the message does not quote it
    """
    key_id: Any = codec.key_id
    named = key_id if isinstance(key_id, str) else ""
    if 0 < len(named) <= _LONGEST_ID and named.isprintable() and " " not in named:
        return named
    raise ValueError(
        f"its key_id must be a text of 1 to {_LONGEST_ID} printable characters without spaces"
    )


class AesGcmCodec:
    """Encrypts with AES-256-GCM and random nonces: nothing can be read or changed without the key.

    :param keys: by their ids, each 32 random bytes or the base64 of them. The first one encrypts,
        all of them decrypt
    :raises SettingsError: a key or an id is not valid, or ``cryptography`` is not installed
    """

    def __init__(self, keys: Mapping[str, bytes | str]) -> None:
        if not keys:
            raise SettingsError(f"no encryption key was given: give at least one, as {_FORM}")
        make = _aes_gcm()
        self._ciphers: dict[str, AESGCM] = {
            key_id: make(_key(number, key_id, key))
            for number, (key_id, key) in enumerate(keys.items(), 1)
        }
        self._key_id = next(iter(self._ciphers))

    @property
    def key_id(self) -> str:
        """Names the key that :meth:`encode` uses."""
        return self._key_id

    def encode(self, data: bytes, context: bytes) -> bytes:
        """Encrypt ``data``; the nonce comes first."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[self._key_id].encrypt(nonce, data, context)

    def decode(self, data: bytes, context: bytes, key_id: str) -> bytes:
        """Decrypt what :meth:`encode` returned.

        :raises LookupError: there is no such key
        :raises ValueError: the data was changed, or belongs to another key or context
        """
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers[key_id]
        try:
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context)
        except InvalidTag:
            raise ValueError("its authentication tag does not match") from None

    def __repr__(self) -> str:
        return f"AesGcmCodec(<{', '.join(self._ciphers)}>)"


def parse_keys(text: str) -> dict[str, str]:
    """Read keys as the environment has them: ``ID:KEY``, separated by commas or white space.

    :raises ValueError: the text has another form; the message quotes nothing of it
    """
    if not text.strip(", \t\r\n"):
        raise ValueError(f"it has no key: give at least one, as {_FORM}, or unset it")
    keys: dict[str, str] = {}
    for number, entry in enumerate(re.split(r"[,\s]+", text.strip(", \t\r\n")), 1):
        key_id, colon, key = entry.partition(":")
        if not colon or key_id in keys:
            problem = "its id occurs before" if colon else "it has no colon"
            raise ValueError(f"entry {number} is not a key, {problem}: expected {_FORM}")
        keys[key_id] = key
    return keys


def _key(number: int, key_id: str, key: bytes | str) -> bytes:
    """Return the bytes of a key.

    No message quotes them, nor the id: the two may have been swapped.
    """
    if not _KEY_ID.fullmatch(str(key_id)):
        raise SettingsError(
            "the id of an encryption key must have 1 to 64 letters, digits, dots, dashes or "
            f"underscores, beginning with a letter or a digit. A key is {_FORM}"
        )
    found = key
    if isinstance(key, str):
        try:
            found = base64.b64decode(key.translate({45: "+", 95: "/"}), validate=True)
        except (binascii.Error, ValueError):
            found = b""
    if not isinstance(found, bytes) or len(found) != _KEY_BYTES:
        raise SettingsError(
            f"encryption key {number} is not the base64 of {_KEY_BYTES} bytes: make one with "
            "`openssl rand -base64 32`, and give its id first"
        ) from None
    return found


def _aes_gcm() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise SettingsError(
            "encryption keys are given, and the package `cryptography` is not installed: "
            "pip install 'tapps_otel[encrypt]'"
        ) from None
    return AESGCM
