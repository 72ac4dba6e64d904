"""Addresses and texts as people may see them: without passwords, tokens and keys. Pure.

Every message, report, metric and ledger that names an address gets it from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

__all__ = ["MASK", "mask", "public_url", "secrets_in"]

MASK: Final = "***"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_SHORTEST: Final = 4  # characters; the text of a shorter secret is found in ordinary words


def public_url(url: str) -> str:
    """Return an address without user, password, query and fragment; it need not be valid.

    Everything before its last ``@`` is dropped: an unescaped password may hold any character.
    """
    scheme, rest = _split(url)
    return scheme + re.split(r"[?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def secrets_in(url: str) -> set[str]:
    """Return what :func:`public_url` drops, as it is written in the address and as it is sent."""
    user, _, rest = _split(url)[1].rpartition("@")
    query = re.split(r"[?#]", rest, maxsplit=1)[1:]
    parts = [user, *user.split(":", 1), *query]
    parts += [pair.partition("=")[2] for text in query for pair in text.split("&")]
    return {one for part in parts for one in (part, unquote(part))} - {""}


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return a text of another program with secrets of ours replaced.

    Secrets of fewer than four characters stay.
    """
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK)
    return text


def _split(url: str) -> tuple[str, str]:
    """Split an address into its scheme with ``://``, which it may lack, and the rest."""
    found = _SCHEME.match(url)
    end = found.end() if found else 0
    return url[:end], url[end:]
