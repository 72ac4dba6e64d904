"""How users let objects of their classes be stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tapps_otel.run.codecs import compiler, registry
from tapps_otel.run.codecs.native import class_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["register_codec", "unregister_codec"]

T = TypeVar("T")


def register_codec(
    cls: type[T],
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
    *,
    name: str | None = None,
) -> None:
    """Let objects of a class be stored, where an annotation names the class.

    Register codecs before the first run: a step that was called keeps those it found. Every value
    is read back when it is written; one that would come back different is refused.

    :param encode: gives JSON values (dicts with string keys, lists, strings, numbers, None)
    :param decode: gives an equal object of the same class from them
    :param name: of the class in logs, if its own may change; else its module-qualified name
    """
    codec = registry.RegisteredCodec(cls, encode, decode, name or class_name(cls))
    registry.add(cls, codec)
    compiler.forget()


def unregister_codec(cls: type) -> None:
    """Undo :func:`register_codec`."""
    registry.remove(cls)
    compiler.forget()
