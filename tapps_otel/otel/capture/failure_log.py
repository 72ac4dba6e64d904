"""Reports of spans that could not be written: an error the first time, until it works again."""

from __future__ import annotations

import logging

__all__ = ["FailureLog"]

_log = logging.getLogger(__name__)


class FailureLog:
    """Logs failures of one writer of spans."""

    def __init__(self) -> None:
        self._failing = False

    def worked(self) -> None:
        """Note that something was written."""
        self._failing = False

    def failed(self, error: Exception) -> None:
        """Log that spans are not written."""
        level = logging.DEBUG if self._failing else logging.ERROR
        self._failing = True
        _log.log(
            level,
            "spans could not be written to a log, and are missing there: %s: %s",
            type(error).__qualname__,
            error,
        )
