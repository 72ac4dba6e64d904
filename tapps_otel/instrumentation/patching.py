"""Hooks on the functions of somebody else's package: put on, told of, taken off.

Nothing is imported for their sake: a module that is not there yet is hooked when it is imported.
Each hook can fail by itself; what is missing is told by the report.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tapps_otel.errors import SettingsError
from tapps_otel.instrumentation.guarding import Guard, Wrapper

__all__ = ["MISSING", "OFF", "ON", "PENDING", "Hook", "Patches", "Report"]

ON: Final = "on"
PENDING: Final = "pending"  # its module is not imported yet
MISSING: Final = "missing"  # its module has no such function, or one that cannot be watched
OFF: Final = "off"

_log = logging.getLogger("tapps_otel")


@dataclass(frozen=True, slots=True)
class Hook:
    """A function to be wrapped.

    :ivar module: where it is, as ``package.module``
    :ivar name: in that module, as ``Class.method``
    :ivar load: gives what watches its calls; not called before the module is imported
    :ivar essential: without it nothing true could be told, and no hook stays on
    """

    module: str
    name: str
    load: Callable[[], Wrapper]
    essential: bool = False


class Report:
    """How the hooks of an executor stand at this moment.

    :ivar target: the executor
    """

    def __init__(self, target: str, patches: Patches) -> None:
        self.target, self._patches = target, patches

    @property
    def hooks(self) -> dict[str, str]:
        """By function: ``on``, ``pending``, ``missing`` or ``off``."""
        return self._patches.states()

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        return MISSING not in self.hooks.values()

    @property
    def problem(self) -> str | None:
        """Why no hook is on, where that is so although they were asked for."""
        return self._patches.problem

    def __str__(self) -> str:
        lines = [f"{state:<8}{name}" for name, state in self.hooks.items()]
        return "\n".join([f"{self.target}: {self.problem or 'instrumented'}", *lines])


class Patches:
    """The hooks of one executor.

    :ivar problem: why none is on, where that is so
    """

    def __init__(self, target: str, hooks: tuple[Hook, ...]) -> None:
        self.report = Report(target, self)
        self.problem: str | None = None
        self._target, self._hooks = target, hooks
        self._wanted = False
        self._watched: set[str] = set()  # modules whose import is reported; that cannot be undone
        self._states = dict.fromkeys(self._names(), OFF)
        self._undo: list[Callable[[], None]] = []

    def states(self) -> dict[str, str]:
        """See :attr:`Report.hooks`."""
        return dict(self._states)

    def put_on(self) -> None:
        """Hook what is imported, now; and what is not yet, when it is. Nothing is raised."""
        if self._wanted:
            return
        import wrapt

        self._wanted = True
        self._states = dict.fromkeys(self._states, PENDING)
        for module in dict.fromkeys(hook.module for hook in self._hooks):
            if module in self._watched:
                if module in sys.modules:
                    self._on_import(sys.modules[module])
            else:
                self._watched.add(module)
                wrapt.register_post_import_hook(self._on_import, module)

    def take_off(self) -> None:
        """Put every function back."""
        self._wanted = False
        while self._undo:
            self._undo.pop()()
        self._states = dict.fromkeys(self._states, OFF)

    def _names(self) -> list[str]:
        return [f"{hook.module}.{hook.name}" for hook in self._hooks]

    def _on_import(self, module: Any) -> None:
        if not self._wanted:
            return
        if not _enabled():
            self.take_off()
            return
        for hook in self._hooks:
            if hook.module == module.__name__:
                self._put(hook, module)

    def _put(self, hook: Hook, module: Any) -> None:
        name = f"{hook.module}.{hook.name}"
        try:
            self._undo.append(_wrap(module, hook))
        except Exception as error:  # noqa: BLE001 - what is imported here is not ours to break
            self._states[name] = MISSING
            self._miss(hook, error)
        else:
            self._states[name] = ON

    def _miss(self, hook: Hook, error: Exception) -> None:
        missing = isinstance(error, AttributeError)
        why = f"{hook.module} has no {hook.name}" if missing else f"{hook.name}: {error}"
        if not hook.essential:
            _log.warning("%s: %s: what it tells is not logged", self._target, why)
            return
        self.problem = f"not instrumented: {why}"
        _log.error("%s: %s. Its runs go on without a log", self._target, self.problem)
        unfit = {name for name, state in self._states.items() if state == MISSING}
        self.take_off()
        self._states |= dict.fromkeys(unfit, MISSING)


def _wrap(module: Any, hook: Hook) -> Callable[[], None]:
    """Wrap one function; gives what undoes it.

    :raises AttributeError: it is not there
    :raises TypeError: it is a generator, or its class cannot be changed
    """
    import wrapt

    parent, attribute, original = wrapt.resolve_path(module, hook.name)
    _check(original)
    own = attribute in vars(parent)  # else it is a base class's: nothing to put back
    guard = Guard(f"{hook.module}.{hook.name}", hook.load())
    wrapper = wrapt.FunctionWrapper(original, guard)
    wrapt.apply_patch(parent, attribute, wrapper)

    def undo() -> None:
        guard.on = False
        # Who has wrapped it after us keeps that: the wrapper inside lets everything pass then.
        if vars(parent).get(attribute) is not wrapper:
            return
        if own:
            setattr(parent, attribute, original)
        else:
            delattr(parent, attribute)

    return undo


def _check(function: Any) -> None:
    """:raises TypeError: a log of its call would not tell what it does"""
    function = getattr(function, "__func__", function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = "it is a generator, and does its work after its call has returned"
        raise TypeError(msg)


def _enabled() -> bool:
    from tapps_otel import settings  # heavy: not before somebody asks for hooks

    try:
        return settings.current().enabled
    except SettingsError as error:
        _log.error("nothing is instrumented: %s", error)
        return False
