"""What a callable brings along to its calls: the object of a method, arguments of a partial. Pure.

They tell one call from another as the arguments do that are given.
"""

from __future__ import annotations

import functools
import inspect
from hashlib import sha256
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

__all__ = ["carried_by", "digest_of_carried"]


def carried_by(fn: Callable[..., Any], ignore: Iterable[str] = ()) -> dict[str, Any]:
    """What a callable brings along, by parameter; nothing for a plain function.

    :param ignore: names to leave out
    """
    found: dict[str, Any] = {}
    while isinstance(fn, functools.partial):
        found = {**_arguments_of(fn), **found}
        fn = fn.func
    if isinstance(fn, MethodType):
        found["self"] = fn.__self__
    elif not isinstance(fn, (FunctionType, type)) and not hasattr(fn, "__name__"):
        found["self"] = fn
    return {name: value for name, value in found.items() if name not in set(ignore)}


def _arguments_of(fn: functools.partial[Any]) -> dict[str, Any]:
    try:
        return dict(inspect.signature(fn.func).bind_partial(*fn.args, **fn.keywords).arguments)
    except (TypeError, ValueError):  # not written in Python
        return {"args": fn.args, **fn.keywords}


def digest_of_carried(carried: Mapping[str, Any], by_value: Container[str] = ()) -> tuple[str, str]:
    """Digest of what a callable brings along.

    :param by_value: names of objects whose attributes do not count
    :returns: with it the name of an object that nothing tells from others of its class; empty if
        there is none
    """
    from tapps_otel.run.codecs import canonical  # heavy: not before the first call

    digests, formless = {}, ""
    for name, value in carried.items():
        digest_of = canonical.digest_of_value if name in by_value else canonical.digest_of_carried
        digest = digest_of(value)
        if digest is None:
            formless = name
        else:
            digests[name] = digest
    return sha256(canonical.canonical(digests)).hexdigest(), formless
