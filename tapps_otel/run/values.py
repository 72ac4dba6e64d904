"""Values: arguments and results of steps as JSON, by their annotations, and their digests. Pure.

Nothing is pickled. A value is stored only if reading it back gives an equal one: a type that JSON
does not have needs an annotation that names it, and a value that no annotation can describe is
refused, with its path.
"""

from __future__ import annotations

import inspect
import json
import math
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from types import FunctionType, GenericAlias, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import msgspec

from tapps_otel.errors import StepInputError, StepResultError, WorkflowInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import TypeAdapter

__all__ = [
    "Signature",
    "canonical",
    "check_text",
    "digest",
    "from_json",
    "to_json",
]

MAX_DEPTH: Final = 100  # lists and objects inside each other; readers need a bound
_PATH_LIMIT: Final = 200  # characters of a path in a message
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_FREE: Final = frozenset({Any, object, inspect.Parameter.empty})  # annotations without a type
# Annotations whose values are JSON's own, each with the types that it admits.
_PLAIN: Final[dict[Any, frozenset[type]]] = {
    None: frozenset({type(None)}),
    type(None): frozenset({type(None)}),
    bool: frozenset({bool}),
    int: frozenset({int, bool}),
    float: frozenset({float, int}),
    str: frozenset({str}),
    list: frozenset({list}),
    dict: frozenset({dict}),
}
# Annotations of containers that may hold anything, with the type of the container.
_OPEN: Final[dict[Any, type]] = {
    list[Any]: list,
    list[object]: list,
    dict[str, Any]: dict,
    dict[str, object]: dict,
}
_REMEDY: Final = "annotate it with a type that pydantic can write as JSON, or return a JSON value"


class _NotNativeError(TypeError):
    """A value is not one of JSON's own.

    :ivar path: where it is, below the value that was given
    :ivar problem: what is wrong with it
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


# -- JSON-native values


def to_json(value: object) -> bytes:
    """Write a value of JSON's own types; integers stay exact, lone surrogates are escaped.

    :raises TypeError: a value that is not JSON's own (a tuple, a NaN, a key that is not a string,
        ...); the message names its path
    """
    if type(value) not in _SCALARS:
        try:
            _check_native(value, MAX_DEPTH)
        except _NotNativeError as error:
            raise _NotNativeError(f"${error.path}"[:_PATH_LIMIT], error.problem) from None
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def from_json(data: bytes) -> Any:
    """Read what :func:`to_json` wrote."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data)


def _check_native(value: Any, depth: int) -> None:
    """Check that a value, and all inside it, is of JSON's own types.

    :raises _NotNativeError: it is not; its path is put together on the way out
    """
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):
            raise _NotNativeError("", f"{value} does not exist in JSON")
        return
    if kind is not dict and kind is not list:
        raise _NotNativeError("", _kind_name(kind))
    if depth == 0:
        raise _NotNativeError("", f"nested deeper than {MAX_DEPTH} levels")
    for key, item in value.items() if kind is dict else enumerate(value):
        if kind is dict and type(key) is not str:
            raise _NotNativeError("", f"the key {key!r:.80} is not a string")
        if type(item) not in _SCALARS:
            try:
                _check_native(item, depth - 1)
            except _NotNativeError as error:
                error.path = (f".{key}" if kind is dict else f"[{key}]") + error.path
                raise


def check_text(value: object, what: str) -> None:
    """Check that a value is a string, where the log's format has one.

    :param what: names it in the message
    :raises TypeError: it is not
    """
    if not isinstance(value, str):
        msg = f"{what} must be a string, not {value!r:.80} ({type(value).__name__})"
        raise TypeError(msg)


# -- canonical form and digest


def canonical(value: object) -> bytes:
    """The canonical form, of which digests are made: JSON with sorted keys, no spaces, ASCII.

    Floats are written as ``repr`` writes them (``1e+22``), sets as sorted lists, dataclasses and
    pydantic models as objects, anything else as pydantic writes it.

    :raises TypeError: a value without such a form
    :raises ValueError: a NaN or an infinity
    """
    return _canonical.encode(value).encode()


def digest(value: object) -> str:
    """SHA-256 of the canonical form, 64 hex digits."""
    return sha256(_canonical.encode(value).encode()).hexdigest()


_quoted = json.encoder.encode_basestring_ascii
_SCALAR_FORMS: Final[dict[type, Callable[[Any], str]]] = {
    str: _quoted,
    int: int.__repr__,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}


def _other(value: object) -> object:
    if isinstance(value, Iterator):
        raise TypeError(_used_up(value))
    if isinstance(value, (set, frozenset)):
        return [json.loads(text) for text in sorted(_canonical.encode(one) for one in value)]
    return _any_adapter().dump_python(value, mode=_mode(value))


def _used_up(value: object) -> str:
    return f"{_kind_name(type(value))}, an iterator that would be used up,"


def _mode(value: object) -> Any:
    """Models go through Python values, so that a set inside one is seen and sorted."""
    nested = hasattr(value, "__pydantic_fields__") or hasattr(value, "__dataclass_fields__")
    return "python" if nested else "json"


def _any_adapter() -> TypeAdapter[Any]:
    return _adapter(Any)


_canonical = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=True, default=_other
)
_adapters: dict[Any, Any] = {}


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # heavy, and plain JSON never needs it

    try:
        return _adapters[annotation]  # type: ignore[no-any-return]
    except KeyError:
        found = _adapters[annotation] = TypeAdapter(annotation)
        return found
    except TypeError:  # an annotation that cannot be a key
        return TypeAdapter(annotation)


# -- annotations and signatures


class _Codec:
    """Writes and reads the values of one annotation."""

    def __init__(self, annotation: Any) -> None:
        self._adapter = None
        self._admits: frozenset[type] | None = None
        self._open: type | None = None
        self.unfit: str | None = None  # why pydantic cannot handle the annotation
        if _is_free(annotation):
            return
        plain = None
        with suppress(TypeError):  # one that cannot be a key
            plain, self._open = _PLAIN.get(annotation), _OPEN.get(annotation)
        if plain is not None:
            self._admits = plain
            return
        try:
            self._adapter = _adapter(annotation)
        except Exception as error:  # noqa: BLE001 - pydantic has many, and calls into annotations
            reason = str(error).splitlines()[0]
            self.unfit = f"{annotation!r:.200} cannot be serialized as JSON: {reason:.200}"

    @property
    def plain(self) -> bool:
        """Whether its values are JSON's own, and need no conversion."""
        return self._adapter is None and self.unfit is None

    def write(self, value: object) -> bytes:
        """Write a value as JSON.

        :raises TypeError, ValueError: it cannot be stored, or does not match the annotation
        """
        if self.unfit is not None:
            raise _NotNativeError("$", self.unfit)
        if self._adapter is None:
            if self._admits is not None and type(value) not in self._admits:
                raise _NotNativeError("$", f"{type(value).__name__} does not match its annotation")
            return to_json(value)
        if type(value) is self._open:
            try:
                return to_json(value)
            except _NotNativeError:
                pass  # pydantic may know how to write what is inside
        data = self._adapter.dump_json(value, warnings="error")
        if b"null" in data:  # pydantic writes NaN as null
            _refuse_nan(self._adapter.dump_python(value, mode="python", warnings="none"))
        return data

    def read(self, data: bytes) -> Any:
        """Read a value from JSON.

        :raises ValueError: it does not match the annotation
        """
        if self.unfit is not None:
            raise ValueError(self.unfit)
        if self._adapter is None:
            return from_json(data)
        if self._open is not None and type(value := from_json(data)) is self._open:
            return value
        return self._adapter.validate_json(data)


def _hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """A function's annotations, as far as they can be resolved.

    A name may be local to the function around it, or exist only for type checkers.
    """
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    local: dict[str, Any] = {}
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        with suppress(ValueError):  # an empty cell
            local[name] = cell.cell_contents
    try:
        return get_type_hints(fn, localns=local, include_extras=True)
    except Exception:  # noqa: BLE001 - one bad name fails all of them: resolve each alone
        found: dict[str, Any] = {}
        for name, annotation in getattr(fn, "__annotations__", {}).items():
            alone = SimpleNamespace(__annotations__={name: annotation})
            names_here = getattr(fn, "__globals__", {})
            with suppress(Exception):
                found |= get_type_hints(alone, names_here, local, include_extras=True)
        return found


class Signature:
    """How a function's arguments and result become JSON, and come back.

    :param ignore: parameters that are not part of a call's identity
    """

    def __init__(self, fn: Callable[..., Any], ignore: tuple[str, ...] = ()) -> None:
        # A weak reference: signatures are cached by function, and must not keep it alive.
        self._fn = _reference(fn)
        self._name = getattr(fn, "__qualname__", repr(fn))
        self._signature = inspect.signature(fn)
        self._parameters = self._signature.parameters
        unknown = set(ignore) - set(self._parameters)
        if unknown:
            msg = f"ignore={sorted(unknown)}: {self._name} has no such parameter"
            raise TypeError(msg)
        kinds = {parameter.kind for parameter in self._parameters.values()}
        self._simple = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self._names = tuple(self._parameters)
        self._defaults = {
            name: parameter.default
            for name, parameter in self._parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        receiver = {name for name in self._names[:1] if name in {"self", "cls"}}
        self._ignored = frozenset(ignore) | receiver

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return _hints_of(self._fn())

    @cached_property
    def _typed(self) -> frozenset[str]:
        """Parameters whose annotation is not one of JSON's own types."""
        return frozenset(
            name
            for name in self._names
            if name not in self._ignored and not self._codec_of(name).plain
        )

    @cached_property
    def _labels(self) -> list[tuple[int, str]] | None:
        """Positions of the arguments in the order of the canonical form, each with its label.

        ``None`` where the form is not that simple.
        """
        if not self._simple or self._ignored or self._typed:
            return None
        places = [self._names.index(name) for name in sorted(self._names)]
        return [
            (place, f"{',' if at else '{'}{_quoted(self._names[place])}:")
            for at, place in enumerate(places)
        ]

    @cached_property
    def _result(self) -> _Codec:
        return _codec(self._hints.get("return", Any))

    def _codec_of(self, name: str) -> _Codec:
        hint = self._hints.get(name, Any)
        kind = self._parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return _codec(list if _is_free(hint) else GenericAlias(list, (hint,)))
        if kind is inspect.Parameter.VAR_KEYWORD:
            return _codec(dict if _is_free(hint) else GenericAlias(dict, (str, hint)))
        return _codec(hint)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, defaults included.

        :raises TypeError: they do not fit, with the message that the call would give
        """
        if self._simple and not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args))  # noqa: B905 - of one length, and faster
        if self._simple and len(args) + len(kwargs) <= len(self._names):
            bound = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
            if len(bound) == len(self._names) and (
                not kwargs or kwargs.keys() <= set(self._names[len(args) :])
            ):
                return bound
        full = self._signature.bind(*args, **kwargs)
        full.apply_defaults()
        return dict(full.arguments)

    def digest(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Digest of a call's inputs, without ``self`` and what is ignored.

        :raises StepInputError: a value without a canonical form
        :raises TypeError: the arguments do not fit
        """
        labels = self._labels
        if labels is not None and not kwargs and len(args) == len(labels):
            form = ""  # written here for the most frequent calls, because that is faster
            for place, label in labels:
                write = _SCALAR_FORMS.get(type(args[place]))
                if write is None:
                    break
                form += label + write(args[place])
            else:
                return sha256(((form or "{") + "}").encode()).hexdigest()
        bound = self.bind(args, kwargs)
        for name in self._ignored:
            bound.pop(name, None)
        try:
            if self._typed:
                self._through_annotations(bound)
            return sha256(_canonical.encode(bound).encode()).hexdigest()
        except (TypeError, ValueError, RecursionError) as error:
            path, problem = find_unstorable(bound) or ("$", str(error))
            msg = (
                f"input of step {self._name}: {path}: {problem} cannot be compared with that of an "
                "earlier execution: leave it out with @step(ignore=...), give the call a key, or "
                f"{_REMEDY}"
            )
            raise StepInputError(msg, path) from None

    def captured(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
        """A call's inputs as JSON, for the log; ``None`` if they have no canonical form."""
        bound = self.bind(args, kwargs)
        for name in self._ignored:
            bound.pop(name, None)
        self._through_annotations(bound)
        try:
            return canonical(bound)
        except (TypeError, ValueError, RecursionError):
            return None

    def _through_annotations(self, bound: dict[str, Any]) -> None:
        for name in self._typed:
            # A value that does not match the annotation is taken as it is.
            with suppress(Exception):
                adapter = _adapter(self._hints[name])
                bound[name] = adapter.dump_python(bound[name], mode="python", warnings="none")

    def check_result(self) -> None:
        """Check, before anything runs, that results can be stored.

        :raises StepResultError: pydantic cannot handle the annotation
        """
        if self._result.unfit is not None:
            raise StepResultError(
                f"result of {self._name} cannot be stored: {self._result.unfit}; {_REMEDY}", "$"
            )

    def result_json(self, value: object) -> bytes:
        """Write a result.

        :raises StepResultError: it cannot be stored, or does not match its annotation
        """
        try:
            return self._result.write(value)
        except (TypeError, ValueError, RecursionError) as error:
            path, problem = _place(value, error)
            msg = (
                f"result of {self._name} cannot be stored: {path}: {problem}; {_REMEDY} (or, for "
                "a step: @step(persist=False))"
            )
            raise StepResultError(msg, path) from None

    def result_from_json(self, data: bytes) -> Any:
        """Read a stored result back.

        :raises StepResultError: it does not fit the annotation, which may have changed
        """
        try:
            return self._result.read(data)
        except ValueError as error:
            msg = (
                f"the stored result of {self._name} does not fit its annotation (has it changed?): "
                f"{error}. Give the step a new name, or undo the change"
            )
            raise StepResultError(msg, "$") from None

    def inputs_json(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Write a workflow's inputs, as an object by parameter name.

        :raises WorkflowInputError: a value cannot be stored, or does not match its annotation
        :raises TypeError: the arguments do not fit
        """
        parts = []
        for name, value in self.bind(args, kwargs).items():
            rest = self._parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            given = list(value) if rest else value
            try:
                data = self._codec_of(name).write(given)
            except (TypeError, ValueError, RecursionError) as error:
                place, problem = _place(given, error)
                path = f"$.{name}{place[1:]}"
                msg = f"inputs of {self._name} cannot be stored: {path}: {problem}; {_REMEDY}"
                raise WorkflowInputError(msg, path) from None
            parts.append(b"%b:%b" % (json.dumps(name).encode(), data))
        return b"{" + b",".join(parts) + b"}"

    def call_with(self, inputs: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn stored inputs into the arguments of a call.

        :raises WorkflowInputError: they do not fit the function's parameters
        """
        stored = from_json(inputs)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        left_out = False
        try:
            for name, parameter in self._parameters.items():
                if name not in stored:
                    left_out = True
                    continue
                value = self._codec_of(name).read(to_json(stored[name]))
                if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                    args.extend(value)
                elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                elif parameter.kind is inspect.Parameter.KEYWORD_ONLY or left_out:
                    kwargs[name] = value  # after one that is left out, positions do not count
                else:
                    args.append(value)
            unknown = stored.keys() - self._parameters.keys()
            if unknown:
                raise TypeError(f"it has no parameter {sorted(unknown)}")
            self._signature.bind(*args, **kwargs)
        except (TypeError, ValueError) as error:
            msg = f"the stored inputs do not fit {self._name}: {error}"
            raise WorkflowInputError(msg, "$") from None
        return tuple(args), kwargs


def _reference(fn: Callable[..., Any]) -> Callable[[], Any]:
    fn = getattr(fn, "__func__", fn)
    return weakref.ref(fn) if isinstance(fn, FunctionType) else lambda: fn


def _is_free(annotation: Any) -> bool:
    """Whether an annotation names no type, so that the type of a value is taken."""
    try:
        return annotation in _FREE
    except TypeError:  # an unhashable annotation names a type
        return False


_codecs: dict[Any, _Codec] = {}


def _codec(annotation: Any) -> _Codec:
    try:
        return _codecs[annotation]
    except KeyError:
        found = _codecs[annotation] = _Codec(annotation)
        return found
    except TypeError:  # an annotation that cannot be a key
        return _Codec(annotation)


def _place(value: object, error: Exception) -> tuple[str, str]:
    """Where in ``value`` the problem is, and what it is."""
    if isinstance(error, _NotNativeError):
        return error.path, error.problem
    if "UnexpectedValue" in str(error):
        return "$", f"it does not match its annotation: {error}"
    return find_unstorable(value) or ("$", str(error))


def _refuse_nan(value: object, path: str = "$") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotNativeError(path, f"{value} does not exist in JSON")
    for step, item in _items(value):
        _refuse_nan(item, path + step)


def find_unstorable(
    value: object, path: str = "$", depth: int = MAX_DEPTH
) -> tuple[str, str] | None:
    """The first place inside ``value`` that pydantic cannot write as JSON: ``(path, type)``."""
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"{value} does not exist in JSON"
    if depth == 0:
        return path[:_PATH_LIMIT], f"nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, Iterator):
        return path, _used_up(value)
    for step, item in _items(value):
        found = find_unstorable(item, path + step, depth - 1)
        if found:
            return found
    try:
        _any_adapter().dump_json(value)
    except Exception:  # noqa: BLE001 - pydantic has many
        return path, _kind_name(type(value))
    return None


def _kind_name(kind: type) -> str:
    own = kind.__qualname__
    return own if kind.__module__ in {"builtins", own} else f"{kind.__module__}.{own}"


def _items(value: object) -> list[tuple[str, object]]:
    """The parts of a container, each with its step of the path."""
    if isinstance(value, dict):
        return [(f".{key}", item) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    fields = getattr(value, "__dataclass_fields__", None) or getattr(
        type(value), "__pydantic_fields__", None
    )
    if fields and not isinstance(value, type):
        return [(f".{name}", getattr(value, name, None)) for name in fields]
    return []
