"""Settings: from ``configure()``, else from the environment, else the defaults."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def _settings_of(given: dict[str, Any]) -> Settings:
    from tapps_otel.settings_model import combined_with_environment  # heavy: pydantic

    return combined_with_environment(given)
