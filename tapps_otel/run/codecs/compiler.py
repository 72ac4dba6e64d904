"""From an annotation to its codec."""

from __future__ import annotations

import inspect
import types
import typing
from collections import Counter, OrderedDict, abc, defaultdict, deque
from dataclasses import InitVar
from enum import Enum
from threading import RLock
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from tapps_otel.run.codecs.classes import AbstractCodec, ClassCodec
from tapps_otel.run.codecs.containers import DequeCodec, DictCodec, FixedTupleCodec, ItemsCodec
from tapps_otel.run.codecs.fields import fields_of
from tapps_otel.run.codecs.later import LaterCodec
from tapps_otel.run.codecs.library import PydanticCodec, builtin_codec
from tapps_otel.run.codecs.plain import EnumCodec, FreeCodec, ScalarCodec, scalar_codec
from tapps_otel.run.codecs.refused import RefusedCodec
from tapps_otel.run.codecs.registry import registered
from tapps_otel.run.codecs.typed_dict import TypedDictCodec
from tapps_otel.run.codecs.union import UnionCodec

if typing.TYPE_CHECKING:
    from tapps_otel.run.codecs.codec import Codec

__all__ = ["codec_of", "forget"]

_FREE: Final = frozenset({Any, object, inspect.Parameter.empty})
_SCALARS: Final = (str, int, float, bool, type(None))
# Annotations that admit several containers: the one that most values are of comes first.
_ABSTRACT: Final[dict[Any, tuple[type, ...]]] = {
    abc.Iterable: (list, tuple, set, frozenset, deque),
    abc.Collection: (list, tuple, set, frozenset, deque),
    abc.Reversible: (list, tuple, deque),
    abc.Sequence: (list, tuple, deque),
    abc.MutableSequence: (list, deque),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set,),
    abc.Mapping: (dict, OrderedDict, defaultdict),
    abc.MutableMapping: (dict, OrderedDict, defaultdict),
}
_ITERATORS: Final = {
    abc.Iterator, abc.Generator, abc.AsyncIterable, abc.AsyncIterator, abc.AsyncGenerator,
}  # fmt: skip
_WRAPPERS: Final = {
    getattr(typing, name)
    for name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
} | {InitVar}

_codecs: dict[Any, Codec] = {}
_open: dict[Any, LaterCodec] = {}  # of the aliases whose codecs are being made
_lock: Final = RLock()


def codec_of(annotation: Any) -> Codec:
    """The codec of an annotation, made once for each that can be a key."""
    try:
        found = _codecs.get(annotation)
    except TypeError:
        return _compile(annotation)
    if found is None:
        with _lock:
            found = _codecs.get(annotation) or _open.get(annotation) or _compile_once(annotation)
    return found


def _compile_once(annotation: Any) -> Codec:
    if not _is_alias(annotation):
        found = _codecs[annotation] = _compile(annotation)
        return found
    later = _open[annotation] = LaterCodec(annotation.__name__)  # it may be one of itself
    try:
        found = _codecs[annotation] = later.codec = _compile(annotation)
    finally:
        del _open[annotation]
    return found


def _is_alias(annotation: Any) -> bool:
    """Whether it was made by a ``type`` statement."""
    return type(annotation).__name__ == "TypeAliasType"


def forget() -> None:
    """Make codecs anew: what can be stored has changed."""
    _codecs.clear()


def _compile(annotation: Any) -> Codec:
    annotation = _bare(annotation)
    if annotation is None:
        annotation = type(None)
    if _is_free(annotation) or isinstance(annotation, TypeVar):
        bound = getattr(annotation, "__bound__", None)
        return FreeCodec() if bound is None else codec_of(bound)
    if annotation in _SCALARS:
        return scalar_codec(annotation)
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _union(arguments)
    if origin is Literal:
        return _union(tuple(dict.fromkeys(type(value) for value in arguments)))
    if isinstance(origin, type):
        return _of_class(annotation, origin, arguments)
    return PydanticCodec(annotation)


def _bare(annotation: Any) -> Any:
    """Without what says nothing of the values: aliases, ``Annotated``, ``Required``."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated or origin in _WRAPPERS:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif _is_alias(annotation):
            annotation = annotation.__value__
        else:
            return annotation


def _is_free(annotation: Any) -> bool:
    try:
        return annotation in _FREE
    except TypeError:
        return False


def _union(members: tuple[Any, ...]) -> Codec:
    codecs = [codec_of(member) for member in members]
    free = next((codec for codec in codecs if isinstance(codec, FreeCodec) and codec.any), None)
    if free is not None:
        return free
    scalars = [codec for codec in codecs if isinstance(codec, ScalarCodec)]
    others = [codec for codec in codecs if not isinstance(codec, ScalarCodec)]
    if scalars:
        merged = scalars[0]
        for codec in scalars[1:]:
            merged = merged.merged(codec)
        others.append(merged)
    return others[0] if len(others) == 1 else UnionCodec(others)


def _of_class(annotation: Any, origin: type, arguments: tuple[Any, ...]) -> Codec:
    known = registered(origin) or builtin_codec(origin) or _refused(annotation, origin)
    container = _free_container(origin, arguments) or _container(origin, arguments)
    return known or container or _of_user(annotation, origin, arguments)


def _free_container(origin: type, arguments: tuple[Any, ...]) -> Codec | None:
    """A list or an object that may hold anything of JSON's: it is looked through in one go."""
    if origin is list and _is_free(arguments[0] if arguments else Any):
        return FreeCodec(list)
    if origin is dict and (not arguments or (arguments[0] is str and _is_free(arguments[1]))):
        return FreeCodec(dict)
    return None


def _refused(annotation: Any, origin: type) -> Codec | None:
    name = annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
    if origin in _ITERATORS:
        return RefusedCodec(f"{name}: an iterator would be used up")
    if any(_is_secret(base) for base in origin.__mro__):
        return RefusedCodec(f"{name}: a secret is not written into a log")
    return None


def _is_secret(cls: type) -> bool:
    pydantic = cls.__module__.partition(".")[0] == "pydantic"
    return pydantic and cls.__name__ in {"Secret", "SecretBytes", "SecretStr"}


def _of_user(annotation: Any, origin: type, arguments: tuple[Any, ...]) -> Codec:
    """Of a class that is neither known here nor a container."""
    if issubclass(origin, Enum):
        return EnumCodec(origin)
    if typing.is_typeddict(origin):
        return TypedDictCodec(origin, codec_of)
    parameters = getattr(origin, "__parameters__", ())
    fields = fields_of(origin, tuple(zip(parameters, arguments, strict=False)))
    if fields is not None:
        return ClassCodec(origin, fields, codec_of)
    found = PydanticCodec(annotation)
    if found.unfit() is not None and type.__subclasses__(origin) and not arguments:
        return AbstractCodec(origin, codec_of)
    return found


def _container(origin: type, arguments: tuple[Any, ...]) -> Codec | None:
    if origin in _ABSTRACT:
        members = (_container(kind, _for_kind(kind, arguments)) for kind in _ABSTRACT[origin])
        return UnionCodec([member for member in members if member is not None], default=True)
    if issubclass(origin, tuple):
        return _tuple(origin, arguments)
    if origin in {list, set, frozenset, deque}:
        item = codec_of(arguments[0] if arguments else Any)
        return DequeCodec(item) if origin is deque else ItemsCodec(origin, item)
    if origin is Counter:
        return DictCodec(Counter, codec_of(arguments[0] if arguments else str), codec_of(int))
    if origin in {dict, OrderedDict, defaultdict}:
        key, value = arguments or (str, Any)
        default = (get_origin(value) or value) if origin is defaultdict else None
        return DictCodec(origin, codec_of(key), codec_of(value), default)
    return None


def _tuple(origin: type, arguments: tuple[Any, ...]) -> Codec | None:
    if hasattr(origin, "_fields"):
        hints = typing.get_type_hints(origin, include_extras=True)
        return FixedTupleCodec([codec_of(hints.get(name, Any)) for name in origin._fields], origin)
    if origin is not tuple:
        return None
    if not arguments or arguments[1:] == (Ellipsis,):
        return ItemsCodec(tuple, codec_of(arguments[0] if arguments else Any))
    return FixedTupleCodec([] if arguments == ((),) else [codec_of(one) for one in arguments])


def _for_kind(kind: type, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*arguments, Ellipsis) if kind is tuple and arguments else arguments
