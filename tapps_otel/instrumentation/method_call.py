"""A call of an executor's method, as the hooks on it see it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

__all__ = ["MethodCall"]


@dataclass(slots=True)
class MethodCall:
    """A call of an executor's method.

    :ivar executor: the object whose method was called
    :ivar arguments: by parameter name, defaults included
    :ivar result: what the method returned; ``None`` before it has. Of a generator, what it yielded
        last
    :ivar error: what the method raised, while a reader is asked about that
    """

    executor: Any
    arguments: Mapping[str, Any]
    result: Any = None
    error: BaseException | None = None

    @classmethod
    def bind(
        cls, method: Any, executor: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Self:
        """Bind the arguments of a call to the method's parameters.

        Without any arguments where they do not fit: then the call itself raises ``TypeError``.

        :param method: bound to the executor
        """
        return cls(executor, _binder(method).bind(args, kwargs))


class _Binder:
    """Binds arguments to the parameters of a method.

    Where these are plain, without what :mod:`inspect` needs for all kinds of them: it takes longer
    than the rest of a hook.
    """

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters.values()
        self._names = tuple(signature.parameters)
        self._defaults = {
            one.name: one.default for one in parameters if one.default is not one.empty
        }
        self._is_plain = all(one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """Bind them; return no argument where they do not fit."""
        names, given = self._names, len(args)
        if not self._is_plain or given > len(names) or not kwargs.keys() <= {*names[given:]}:
            return self._bind_any(args, kwargs)
        bound = dict(zip(names, args, strict=False))
        for name in names[given:]:
            if name in kwargs:
                bound[name] = kwargs[name]
            elif name in self._defaults:
                bound[name] = self._defaults[name]
            else:
                return {}
        return bound

    def _bind_any(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            return {}
        bound.apply_defaults()
        return bound.arguments


_binders: WeakKeyDictionary[Any, _Binder] = WeakKeyDictionary()


def _binder(method: Any) -> _Binder:
    function = getattr(method, "__func__", method)
    binder = _binders.get(function)
    if binder is None:
        binder = _binders[function] = _Binder(inspect.signature(method))
    return binder
