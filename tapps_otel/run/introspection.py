"""What is to know of the functions that users decorate."""

from __future__ import annotations

import ast
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

__all__ = ["definition_of", "is_async", "name_of", "signature_of"]

# Functions live as long as their module; what is known of them is found once.
_signatures: WeakKeyDictionary[Callable[..., Any], dict[tuple[str, ...], Signature]]
_signatures = WeakKeyDictionary()
_definitions: WeakKeyDictionary[Callable[..., Any], str | None] = WeakKeyDictionary()


def signature_of(fn: Callable[..., Any], ignore: tuple[str, ...] = ()) -> Signature:
    """How its arguments and result become JSON.

    :raises TypeError: ``ignore`` names no parameter
    """
    if not isinstance(fn, (FunctionType, MethodType)):
        return Signature(fn, ignore)  # it would be kept for ever by what is known of it
    known = _signatures.setdefault(fn, {})
    if ignore not in known:
        known[ignore] = Signature(fn, ignore)
    return known[ignore]


def definition_of(fn: Callable[..., Any]) -> str | None:
    """16 hex of the digest of a function's code: comments, layout, docstring and decorators apart.

    ``None`` without source. It may differ between Python versions.
    """
    fn = getattr(fn, "__func__", fn)
    if not isinstance(fn, FunctionType):
        return None
    if fn not in _definitions:
        _definitions[fn] = _digest_of_code(fn)
    return _definitions[fn]


def _digest_of_code(fn: FunctionType) -> str | None:
    try:
        tree = ast.parse(_source_of(fn)).body[0]
    except (SyntaxError, ValueError, IndexError, TokenError):  # a file that has changed since
        return None
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        tree.decorator_list = []
        first = tree.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            tree.body = tree.body[1:] or [ast.Pass()]
    return sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _source_of(fn: FunctionType) -> str:
    """As ``inspect.getsource`` gives it, which looks through all modules first."""
    inner = inspect.unwrap(fn)  # what stands under decorators
    if isinstance(inner, FunctionType):
        fn = inner
    code = fn.__code__
    lines = linecache.getlines(code.co_filename, fn.__globals__)
    return textwrap.dedent("".join(inspect.getblock(lines[code.co_firstlineno - 1 :])))


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether its calls are awaited.

    :raises TypeError: it is a generator
    """
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        msg = (
            f"{name_of(fn)} is a generator: its values come one by one, and cannot be stored as "
            "a result. Give back a list"
        )
        raise TypeError(msg)
    return inspect.iscoroutinefunction(fn)


def name_of(fn: Callable[..., Any]) -> str:
    """What to call it in the log."""
    return getattr(fn, "__name__", None) or type(fn).__name__
