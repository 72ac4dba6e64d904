"""Encrypts what is to be written to a log, while its lock is free.

A codec may be slow, or wait for another thread that writes to this log.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tapps_otel.log.encrypted import CodecFailedError

if TYPE_CHECKING:
    from tapps_otel.log.backlog import Backlog
    from tapps_otel.log.cipher import Cipher
    from tapps_otel.log.event import Event
    from tapps_otel.log.group_sync import GroupSync

__all__ = ["Encrypting"]


class Encrypting:
    """Encrypts events and those that wait. Its caller does not hold the lock of the log."""

    def __init__(self, cipher: Cipher, group: GroupSync, backlog: Backlog) -> None:
        self._cipher, self._group, self._backlog = cipher, group, backlog
        self._busy = False  # a thread encrypts what waits

    def detach(self) -> None:
        """Forget, in a forked child, what a thread of its parent was doing."""
        self._busy = False

    def encrypt(self, event: Event) -> None:
        """Encrypt an event, after those that wait for that, as far as the codec works."""
        with suppress(CodecFailedError):  # the event waits, and is encrypted by a later append
            if self._backlog.events and not self._busy:  # by one thread alone: it may be many calls
                self._busy = True
                try:
                    self._encrypt_waiting()
                finally:
                    self._busy = False
            self._encrypt_one(event)

    def encrypt_waiting(self) -> None:
        """Encrypt what waits, as far as the codec works."""
        with suppress(CodecFailedError):
            self._encrypt_waiting()

    def _encrypt_waiting(self) -> None:
        with self._group.held():
            waiting = list(self._backlog.events)
        for event in waiting:
            self._encrypt_one(event)

    def _encrypt_one(self, event: Event) -> None:
        try:
            hidden = self._cipher.hide(event)
        except CodecFailedError:
            raise
        except Exception:  # noqa: BLE001 - it has no form as JSON, which making its line finds too
            return
        if hidden is not None:
            with self._group.held():
                hidden.put(event)
