"""The classes that a name in a log can mean, among those that are loaded. Nothing is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from tapps_otel.run.codecs.classes import with_subclasses
from tapps_otel.run.failures.exception_parts import BASES, type_name

__all__ = ["WorkflowModule", "exception_classes", "find_class", "loaded_bases"]

_SCRIPT: Final = "__main__"
_MOST_ALIVE: Final = 64  # classes of one definition; a program that makes more has no use for them


class WorkflowModule(NamedTuple):
    """The module of a workflow: a script is ``__main__`` in one execution, and named in another.

    :ivar now: its name
    :ivar before: the last part of the name that it had, if it was renamed
    """

    now: str
    before: str | None = None

    def had_name(self, name: str) -> bool:
        """Whether this may be the module that had a name in an earlier execution."""
        return _SCRIPT in {name, self.now} or name.rpartition(".")[2] == self.before


def find_class(name: str, base: type, module: WorkflowModule | None = None) -> Any:
    """The class that a module has by this name, if it is a subclass of ``base``; else ``None``.

    :param module: of the workflow
    """
    return _loaded(name, base) or _of_script(name, base, module)


def exception_classes(name: str, module: WorkflowModule | None = None) -> list[type[BaseException]]:
    """The exception classes that a name can mean: one that a module has, or those of a function.

    A class inside a function is made anew by each call: a handler may be waiting for any of those
    that are alive. The newest is the first.
    """
    found = find_class(name, BaseException, module)
    if found is not None:
        return [found]
    names = _names(name, module)
    alive = [
        one
        for one in with_subclasses(BaseException)
        if type_name(one) in names and BASES not in vars(one)
    ]
    return alive[: -_MOST_ALIVE - 1 : -1]


def loaded_bases(names: Iterable[str], module: WorkflowModule | None = None) -> tuple[type, ...]:
    """The nearest classes that are loaded of those that a class inherited from."""
    bases: list[type] = []
    for name in names:
        found = exception_classes(name, module) or [find_class(name, object, module)]
        bases += [one for one in found if one and not any(issubclass(base, one) for base in bases)]
    return tuple(bases)


def _names(name: str, module: WorkflowModule | None) -> set[str]:
    """A name with the module that it had, and with the one that the workflow has now."""
    if module is None:
        return {name}
    pairs = (_SCRIPT, module.now), (module.now, _SCRIPT), (module.before or _SCRIPT, module.now)
    return {name} | {
        f"{now}.{name.removeprefix(f'{then}.')}"
        for then, now in pairs
        if name.startswith(f"{then}.")
    }


def _loaded(name: str, base: type) -> Any:
    parts = name.split(".")
    for split in range(len(parts) - 1, -1, -1):
        module = sys.modules.get(".".join(parts[:split]) or "builtins")
        if module is not None:
            return _inside(module, parts[split:], base)
    return None


def _of_script(name: str, base: type, module: WorkflowModule | None) -> Any:
    module_name, _, own = name.rpartition(".")
    if module is None or not module.had_name(module_name):
        return None
    found = _inside(sys.modules.get(module.now), [own], base)
    return found if found is not None and found.__module__ == module.now else None


def _inside(found: Any, names: list[str], base: type) -> Any:
    """What these names lead to. Not by ``getattr``: a module's own could import more."""
    for name in names:
        found = getattr(found, "__dict__", {}).get(name)
    return found if isinstance(found, type) and issubclass(found, base) else None
