"""Settings: from ``configure()``, else from the environment, else the defaults."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

    from tapps_otel.settings_model import Settings
    from tapps_otel.settings_types import SettingsDict

__all__ = ["configure", "current", "peek", "use"]


_given: dict[str, Any] = {}
_current: Settings | None = None


def configure(**given: Unpack[SettingsDict]) -> Settings:
    """Change the settings of runs that start from now on.

    They take precedence over the environment. Settings that are not given keep the values of
    earlier calls.

    :raises SettingsError: names the invalid setting and its valid values; nothing was changed
    """
    global _given, _current  # noqa: PLW0603 - a process has one configuration
    _current = _settings_of({**_given, **given})
    _given = {**_given, **given}
    return _current


def current() -> Settings:
    """Return the settings in force.

    :raises SettingsError: the environment holds an invalid value
    """
    global _current  # noqa: PLW0603 - read once, by the first run
    if _current is None:
        _current = _settings_of(_given)
    return _current


def peek() -> Settings:
    """Return the settings as they are now; the environment is read again by the first run.

    :raises SettingsError: as :func:`current`
    """
    return _current or _settings_of(_given)


@contextmanager
def use(**given: Unpack[SettingsDict]) -> Iterator[Settings]:
    """Use other settings in the whole process within the context. For tests.

    :raises SettingsError: as :func:`configure`
    """
    global _given, _current
    before = _given, _current
    try:
        yield configure(**given)
    finally:
        _given, _current = before


def log_dir_option(folder: Path) -> str:
    """The option with which a command looks into a folder of logs; empty where it does by itself.

    A program may have another folder than the command line, by ``configure()`` or ``log_dir=``.
    """
    try:
        usual: Path | None = _settings_of({}).log_dir
    except SettingsError:  # what the program was given counts for it alone
        usual = None
    if usual is not None and usual.absolute() == folder.absolute():
        return ""
    return f" --log-dir {shlex.quote(str(folder))}"


def _settings_of(given: dict[str, Any]) -> Settings:
    from tapps_otel.settings_model import combined_with_environment  # heavy: pydantic

    return combined_with_environment(given)
