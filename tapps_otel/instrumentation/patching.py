"""Hooks on the functions of a third-party package: put on, reported, taken off.

No module is imported for its hooks: one that is not imported yet is hooked when it is. Hooks fail
one by one; the report shows which are missing.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from weakref import WeakSet

from tapps_otel.errors import SettingsError
from tapps_otel.instrumentation.guarding import Guard, Wrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MISSING", "OFF", "ON", "PENDING", "Hook", "HookState", "Patches", "Report"]

HookState = Literal["on", "pending", "missing", "off"]
ON: Final = "on"
PENDING: Final = "pending"  # its module is not imported yet
MISSING: Final = "missing"  # its module has no such function, or one that cannot be wrapped
OFF: Final = "off"

_log = logging.getLogger("tapps_otel")


@dataclass(frozen=True, slots=True)
class Hook:
    """A function to wrap.

    :ivar module: where the function is, as ``package.module``
    :ivar name: the function in that module, as ``Class.method``
    :ivar owner: the class that has the function, where it is known already
    :ivar streams: whether the function may be a generator
    :ivar load: returns the wrapper; called once the module is imported, so that heavy imports can
        wait until then
    :ivar essential: without this hook the log would be wrong, so all hooks come off
    :ivar load_override: returns the wrapper for a method by which a subclass overrides this one
    """

    module: str
    name: str
    load: Callable[[], Wrapper]
    essential: bool = False
    owner: type[Any] | None = None
    streams: bool = False
    load_override: Callable[[], Wrapper] | None = None

    @property
    def full_name(self) -> str:
        """The function, as reports name it."""
        return f"{self.module}.{self.name}"


class Report:
    """The state of an executor's hooks at this moment.

    :ivar target: the executor
    """

    def __init__(self, target: str, patches: Patches) -> None:
        self.target, self._patches = target, patches

    @property
    def hooks(self) -> dict[str, HookState]:
        """The state of each hook, by the function's full name."""
        return self._patches.states()

    @property
    def ok(self) -> bool:
        """Whether no hook is missing."""
        return MISSING not in self.hooks.values()

    @property
    def problem(self) -> str | None:
        """Why the executor could not be instrumented; ``None`` if it could."""
        return self._patches.problem

    def __str__(self) -> str:
        lines = [f"{state:<8}{name}" for name, state in self.hooks.items()]
        return "\n".join([f"{self.target}: {self.problem or 'instrumented'}", *lines])


class Patches:
    """The hooks of one executor.

    :ivar problem: why all hooks came off; ``None`` if they did not
    """

    def __init__(self, target: str, hooks: tuple[Hook, ...]) -> None:
        self.report = Report(target, self)
        self.problem: str | None = None
        self._target, self._hooks = target, hooks
        self._wanted = False
        self._awaited: set[str] = set()  # modules with an import hook, which cannot be removed
        self._states: dict[str, HookState] = dict.fromkeys((hook.full_name for hook in hooks), OFF)
        self._undo: list[Callable[[], None]] = []
        self._covered: WeakSet[type[Any]] = WeakSet()  # classes whose overrides are hooked

    def states(self) -> dict[str, HookState]:
        """The state of each hook, by the function's full name."""
        return dict(self._states)

    def put_on(self) -> None:
        """Hook imported modules now, and the others when they are imported. Raises nothing."""
        if self._wanted:
            return
        import wrapt

        self._wanted, self.problem = True, None
        self._states = dict.fromkeys(self._states, PENDING)
        for hook in self._hooks:
            if hook.owner is not None:
                self._put(hook, hook.owner, hook.name.rpartition(".")[2])
        for module in dict.fromkeys(hook.module for hook in self._hooks if hook.owner is None):
            if module in self._awaited:
                if module in sys.modules:
                    self._on_import(sys.modules[module])
            else:
                self._awaited.add(module)
                wrapt.register_post_import_hook(self._on_import, module)

    def cover(self, kind: type[Any]) -> None:
        """Hook the methods by which a class, or one of its bases, overrides hooked ones."""
        if kind in self._covered or not self._wanted:
            return
        self._covered.add(kind)
        for hook in self._hooks:
            if hook.load_override is not None:
                for base in _overriding(kind, hook):
                    self._cover(base, hook, hook.load_override)

    def _cover(self, base: type[Any], hook: Hook, load: Callable[[], Wrapper]) -> None:
        method = hook.name.rpartition(".")[2]
        if isinstance(getattr(vars(base)[method], "_self_wrapper", None), Guard):
            return  # it is hooked already, for another subclass
        name = f"{base.__qualname__}.{method}"
        self._put(Hook(base.__module__, name, load, owner=base), base, method)

    def take_off(self) -> None:
        """Restore every function."""
        self._wanted = False
        self._covered.clear()
        while self._undo:
            self._undo.pop()()
        self._states = dict.fromkeys(self._states, OFF)

    def _on_import(self, module: Any) -> None:
        for hook in self._hooks:
            if hook.module == module.__name__ and hook.owner is None:
                self._put(hook, module, hook.name)

    def _put(self, hook: Hook, target: Any, path: str) -> None:
        if not self._wanted:  # an essential hook is missing
            return
        if not _enabled():
            self.take_off()
            return
        try:
            self._undo.append(_wrap(hook, target, path))
        except Exception as error:  # noqa: BLE001 - the import of the module must not fail
            self._states[hook.full_name] = MISSING
            self._miss(hook, error)
        else:
            self._states[hook.full_name] = ON

    def _miss(self, hook: Hook, error: Exception) -> None:
        missing = isinstance(error, AttributeError)
        why = f"{hook.module} has no {hook.name}" if missing else f"{hook.name}: {error}"
        if not hook.essential:
            _log.warning("%s: %s: calls of it are not logged", self._target, why)
            return
        self.problem = f"not instrumented: {why}"
        _log.error("%s: %s. Its runs are not logged", self._target, self.problem)
        unfit = {name for name, state in self._states.items() if state == MISSING}
        self.take_off()
        self._states |= dict.fromkeys(unfit, MISSING)


def _overriding(kind: type[Any], hook: Hook) -> Iterator[type[Any]]:
    """The class and its bases that override a hooked method."""
    class_name, _, method = hook.name.rpartition(".")
    owner = getattr(sys.modules.get(hook.module), class_name, None)
    if owner in kind.__mro__:
        above = kind.__mro__[: kind.__mro__.index(owner)]
        yield from (base for base in above if method in vars(base))


def _wrap(hook: Hook, target: Any, path: str) -> Callable[[], None]:
    """Wrap one function.

    :param target: the module or class that ``path`` starts from
    :returns: what restores it
    :raises AttributeError: it does not exist
    :raises TypeError: it is a generator, or its class cannot be changed
    """
    import wrapt

    parent, attribute, original = wrapt.resolve_path(target, path)
    if not hook.streams:
        _check(original)
    own = attribute in vars(parent)  # else a base class has it, and there is nothing to restore
    guard = Guard(hook.full_name, hook.load())
    wrapper = wrapt.FunctionWrapper(original, guard)
    wrapt.apply_patch(parent, attribute, wrapper)

    def undo() -> None:
        guard.on = False  # for where another package has wrapped our wrapper since: that stays
        if vars(parent).get(attribute) is not wrapper:
            return
        if own:
            setattr(parent, attribute, original)
        else:
            delattr(parent, attribute)

    return undo


def _check(function: Any) -> None:
    """:raises TypeError: its work is not done when its call returns"""
    function = getattr(function, "__func__", function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = "it is a generator, which does its work after its call: the spec needs streams=True"
        raise TypeError(msg)


def _enabled() -> bool:
    from tapps_otel import settings  # heavy

    try:
        return settings.current().enabled
    except SettingsError as error:
        _log.error("nothing is instrumented: %s", error)
        return False
