"""The executors that are instrumented in this process, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapps_otel.instrumentation.patching import Patches, Report

__all__ = ["add", "remove", "report"]

_patches: dict[str, Patches] = {}


def add(name: str, make: Callable[[], Patches]) -> Report:
    """Put on the hooks of an executor. A second call with its name changes nothing.

    :param make: makes the hooks, at the first call
    """
    if name not in _patches:
        _patches[name] = make()
    patches = _patches[name]
    patches.put_on()
    return patches.report


def remove(name: str) -> None:
    """Take off the hooks of an executor, if it has any."""
    patches = _patches.pop(name, None)
    if patches is not None:
        patches.take_off()


def report(name: str) -> Report:
    """The report of an executor's hooks.

    :raises LookupError: it is not instrumented
    """
    if name not in _patches:
        msg = f"{name} is not instrumented"
        raise LookupError(msg)
    return _patches[name].report
