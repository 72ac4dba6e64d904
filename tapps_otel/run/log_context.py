"""Records of the standard ``logging`` that name the run, step and attempt that they come from."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tapps_otel import settings
from tapps_otel.errors import SettingsError
from tapps_otel.run.scope import current_scope

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RunContextFilter", "install", "install_if_asked"]

_NONE: Final = "-"  # outside runs and steps, so that a format never fails
_factory: Callable[..., logging.LogRecord] | None = None


class RunContextFilter(logging.Filter):
    """Adds ``tapps_run``, ``tapps_step`` and ``tapps_attempt`` to log records.

    Added to a handler, for its format: ``%(tapps_run)s %(tapps_step)s``. They are ``-`` outside
    runs and steps. It drops no record. The setting ``log_context`` adds them to all records.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add them, unless the record has them: handlers may be called in other threads."""
        _add(record)
        return True


def install() -> None:
    """Let every record have them that is made from now on; a second call changes nothing."""
    global _factory  # noqa: PLW0603 - a process has one factory of records
    if _factory is None:
        _factory = logging.getLogRecordFactory()
        logging.setLogRecordFactory(_make)


def install_if_asked() -> None:
    """Install it if the settings ask for it, as they are now."""
    with suppress(SettingsError):  # the first run raises it
        if settings.peek().log_context:
            install()


def _make(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = (_factory or logging.LogRecord)(*args, **kwargs)
    _add(record)
    return record


def _add(record: logging.LogRecord) -> None:
    if hasattr(record, "tapps_run"):
        return
    scope = current_scope.get()
    record.tapps_run = _NONE if scope is None else scope.run.workflow_id
    record.tapps_step = _NONE if scope is None else scope.step_id or _NONE
    record.tapps_attempt = getattr(scope, "number", _NONE)  # the workflow itself has none
