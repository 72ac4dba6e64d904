"""Facts about the functions that users decorate: name, signature, digest of the code."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import textwrap
from hashlib import sha256
from tokenize import TokenError
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tapps_otel.run.values import Signature

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "check_callable",
    "definition_of",
    "is_async",
    "mark_async",
    "name_of",
    "signature_of",
]

# Functions live as long as their module: these are computed once.
_signatures: WeakKeyDictionary[Callable[..., Any], dict[tuple[str, ...], Signature]]
_signatures = WeakKeyDictionary()
_definitions: WeakKeyDictionary[Callable[..., Any], str | None] = WeakKeyDictionary()


def signature_of(fn: Callable[..., Any], ignore: tuple[str, ...] = ()) -> Signature:
    """The signature of a function: how its arguments and result become JSON.

    :raises TypeError: ``ignore`` names an unknown parameter
    """
    if not isinstance(fn, (FunctionType, MethodType)):
        return Signature(fn, ignore)  # in the cache it would never be freed
    known = _signatures.setdefault(fn, {})
    if ignore not in known:
        known[ignore] = Signature(fn, ignore)
    return known[ignore]


def definition_of(fn: Callable[..., Any]) -> str | None:
    """Digest of a function's code without comments, layout, docstring and decorators.

    16 hex digits; ``None`` without source. It may differ between Python versions.
    """
    fn = _function_of(fn)
    if not isinstance(fn, FunctionType):
        return None
    if fn not in _definitions:
        _definitions[fn] = _digest_of_code(fn)
    return _definitions[fn]


def _digest_of_code(fn: FunctionType) -> str | None:
    inner = inspect.unwrap(fn)  # the function under its decorators
    fn = inner if isinstance(inner, FunctionType) else fn
    try:
        tree = ast.parse(_source_of(fn)).body[0]
    except (SyntaxError, ValueError, IndexError, TokenError):  # the file has changed
        return None
    if getattr(tree, "name", "<lambda>") != fn.__code__.co_name:  # or it is another one's source
        return None
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        tree.decorator_list = []
        first = tree.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            tree.body = tree.body[1:] or [ast.Pass()]
    return sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _source_of(fn: FunctionType) -> str:
    """The source of a function, as ``inspect.getsource`` finds it after a search of all modules.

    Code that ``exec`` made has none. Its file is ``<string>``, which is the name of the text of
    ``python -c``, too.
    """
    code = fn.__code__
    lines = linecache.getlines(code.co_filename, fn.__globals__)
    return textwrap.dedent("".join(inspect.getblock(lines[code.co_firstlineno - 1 :])))


def check_callable(fn: object, decorator: str) -> None:
    """Refuse what a decorator cannot wrap.

    :raises TypeError: a generator, or the object that another decorator made of a method
    """
    if isinstance(fn, (classmethod, staticmethod)):
        kind = type(fn).__name__
        msg = f"put {decorator} below @{kind}, next to the function: {fn.__func__.__qualname__}"
        raise TypeError(msg)
    if not callable(fn):
        msg = f"{decorator} decorates a function, not {fn!r:.80}"
        raise TypeError(msg)
    inner = _function_of(fn)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        msg = (
            f"{name_of(fn)} is a generator: its values come one by one, and cannot be stored as "
            "a result. Return a list instead"
        )
        raise TypeError(msg)


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether a function's calls are awaited."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(_function_of(fn))


async def _coroutine_function() -> None:
    """Lend its code to objects that count as coroutine functions."""


def mark_async(wrapper: Any) -> None:
    """Let an object whose calls are awaited count as a coroutine function, for all that ask."""
    if hasattr(inspect, "markcoroutinefunction"):  # since Python 3.12
        inspect.markcoroutinefunction(wrapper)
        return
    # What `inspect` takes for a function has these; whether it is async is a flag of its code.
    wrapper.__code__ = _coroutine_function.__code__
    wrapper.__defaults__ = wrapper.__kwdefaults__ = None
    if not hasattr(wrapper, "__name__"):  # it was made from a partial, or from another object
        wrapper.__name__ = type(wrapper).__name__


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name in the log: ``Shop.price`` for a method, without what it is local to."""
    fn = _function_of(fn)
    name: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return name.rpartition("<locals>.")[2]


def _function_of(fn: Any) -> Any:
    """The function that a partial, a bound method or a callable object calls."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    if isinstance(fn, (FunctionType, type)) or hasattr(fn, "__name__"):
        return fn
    called = inspect.getattr_static(type(fn), "__call__", None)
    return called if isinstance(called, FunctionType) else fn
