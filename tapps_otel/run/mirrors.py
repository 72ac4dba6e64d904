"""Runs in a store and in a folder: made alike by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel import settings
from tapps_otel.errors import LogWriteError, RunNotFoundError, SettingsError
from tapps_otel.log import pulling
from tapps_otel.log.home import home_of
from tapps_otel.run.decision import leased, writing
from tapps_otel.run.lookup import store_of

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.log.home import Home
    from tapps_otel.log.store import Store

__all__ = ["migrate", "pull", "push"]


def migrate() -> tuple[int, int]:
    """Make the tables of the store, or bring them up to date; return the version before and now.

    :raises SettingsError: no store is configured
    :raises StoreError: it cannot be reached, or is newer
    """
    return _home().migrate()


def push(workflow_id: str, *, log_dir: Path | str | None = None) -> int:
    """Let the store have all lines that the folder has of a run, and of its side logs.

    :returns: the seq of its last line
    :raises SettingsError: no store is configured
    :raises RunNotFoundError: the folder has no such run
    :raises RunBusyError: a process executes it
    :raises LogDamagedError: its log is damaged
    :raises StoreError: the store cannot be reached
    """
    home, (store, name) = _home(), _find(workflow_id, log_dir)
    if not store.has_log(name):
        raise RunNotFoundError(name, store.folder)
    with leased(store, name) as lease, writing(store, name, lease) as (_, writer):
        seq = writer.seq
    for path in store.side_paths_of(name):
        session = home.take(path.stem)
        try:
            session.prepare(path)
            session.catch_up(path)
        except OSError as error:
            raise LogWriteError(path, str(error)) from error
        finally:
            session.release()
    return seq


def pull(workflow_id: str, *, log_dir: Path | str | None = None) -> int:
    """Let the folder have all lines that the store has of a run, and of its side logs.

    A damaged log is set aside, and large values that are missing or damaged are restored.

    :returns: how many logs have changed
    :raises SettingsError: no store is configured
    :raises RunNotFoundError: neither has such a run
    :raises StoreError: the store cannot be reached
    """
    _home()
    store, name = _find(workflow_id, log_dir)
    changed = pulling.pull(store, name, by_hand=True)
    if not changed and not store.has_log(name):
        raise store.not_found(name)
    return changed


def _find(workflow_id: str, log_dir: Path | str | None) -> tuple[Store, str]:
    """The folder, and the name of a run in it; nothing is pulled."""
    store = store_of(log_dir)
    return store, store.name_of(workflow_id)


def _home() -> Home:
    home = home_of(settings.current())
    if home is None:
        raise SettingsError(
            "no store is configured: set TAPPS_OTEL_STORE, or give configure(store=...), as "
            "postgresql://HOST/NAME"
        )
    return home
