"""The executors that are instrumented in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.instrumentation.patching import Patches, Report

__all__ = ["Key", "add", "cover", "remove", "report"]

Key = str | type[Any]  # a class where no name leads to it, as one that a function defines
_patches: dict[Key, Patches] = {}


def add(key: Key, make: Callable[[], Patches]) -> Report:
    """Put on the hooks of an executor. A second call for it changes nothing.

    :param make: makes the hooks, at the first call
    """
    if key not in _patches:
        _patches[key] = make()
    patches = _patches[key]
    patches.put_on()
    return patches.report


def cover(key: Key, kind: type[Any]) -> None:
    """Hook the methods by which a class overrides those of an instrumented executor."""
    patches = _patches.get(key)
    if patches is not None:
        patches.cover(kind)


def remove(key: Key) -> None:
    """Take off the hooks of an executor, if it has any."""
    patches = _patches.pop(key, None)
    if patches is not None:
        patches.take_off()


def report(key: Key) -> Report:
    """The report of an executor's hooks.

    :raises LookupError: it is not instrumented
    """
    if key not in _patches:
        msg = f"{key} is not instrumented"
        raise LookupError(msg)
    return _patches[key].report
