"""A call of an executor's method, as the hooks on it see it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

__all__ = ["MethodCall"]

_signatures: WeakKeyDictionary[Any, inspect.Signature] = WeakKeyDictionary()


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
        signature = _signature(method)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return cls(executor, {})
        bound.apply_defaults()
        return cls(executor, bound.arguments)


def _signature(method: Any) -> inspect.Signature:
    function = getattr(method, "__func__", method)
    signature = _signatures.get(function)
    if signature is None:
        signature = _signatures[function] = inspect.signature(method)
    return signature
