"""Values: what a step takes and gives, as JSON by way of annotations; and their digests. Pure.

Nothing is pickled. A value is stored only if reading it back gives an equal one: a type that JSON
does not have needs an annotation that says which, and what no annotation can describe is refused
with the path to it.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import textwrap
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import msgspec

from tapps_otel.errors import StepInputError, StepResultError, WorkflowInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import TypeAdapter

__all__ = ["Signature", "canonical", "definition_of", "digest", "from_json", "to_json"]

MAX_DEPTH: Final = 100  # lists and objects inside each other; readers need a bound
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_NATIVE: Final = _SCALARS | {float, list, dict, Any, object, None}
_REMEDY: Final = "annotate it with a type that pydantic can write as JSON, or give back what is JSON"


class _NotNativeError(TypeError):
    """Carries the path to what is not JSON, and what is wrong with it."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


# -- JSON-native values


def to_json(value: object) -> bytes:
    """Write a value of JSON's own types; integers stay exact, lone surrogates are escaped.

    :raises TypeError: naming the path of what is not JSON's own (a tuple, a NaN, a key that is no
        string, ...)
    """
    if type(value) not in _SCALARS:
        _check_native(value, "$", MAX_DEPTH)
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


def _check_native(value: object, path: str, depth: int) -> None:
    kind = type(value)
    if kind in _SCALARS:
        return
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise _NotNativeError(path, f"{value} has no place in JSON")
    elif depth == 0:
        raise _NotNativeError(path[:80], f"nested deeper than {MAX_DEPTH} levels")
    elif kind is list:
        # Most lists hold scalars alone: the set of their types is found in C.
        if not set(map(type, value)) <= _SCALARS:  # type: ignore[call-overload]
            for index, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
                _check_native(item, f"{path}[{index}]", depth - 1)
    elif kind is dict:
        if not set(map(type, value)) <= {str}:  # type: ignore[call-overload]
            odd = next(key for key in value if type(key) is not str)  # type: ignore[attr-defined]
            raise _NotNativeError(path, f"the key {odd!r:.80} is not a string")
        if not set(map(type, value.values())) <= _SCALARS:  # type: ignore[attr-defined]
            for key, item in value.items():  # type: ignore[attr-defined]
                _check_native(item, f"{path}.{key}", depth - 1)
    else:
        raise _NotNativeError(path, f"{kind.__module__}.{kind.__qualname__}")


# -- canonical form and digest


def canonical(value: object) -> bytes:
    """The form that digests are made of: JSON with sorted keys, no spaces, ASCII.

    Floats are written as ``repr`` writes them (``1e+22``), sets as sorted lists, dataclasses and
    pydantic models as objects, anything else as pydantic writes it.

    :raises TypeError: a value without such a form
    :raises ValueError: a NaN or an infinity
    """
    return _canonical.encode(value).encode()


def digest(value: object) -> str:
    """SHA-256 of the canonical form, 64 hex."""
    return sha256(_canonical.encode(value).encode()).hexdigest()


def _other(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return [json.loads(text) for text in sorted(_canonical.encode(one) for one in value)]
    return _any_adapter().dump_python(value, mode=_mode(value))


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
    from pydantic import TypeAdapter  # noqa: PLC0415 - heavy, and plain JSON never needs it

    try:
        return _adapters[annotation]  # type: ignore[no-any-return]
    except KeyError:
        found = _adapters[annotation] = TypeAdapter(annotation)
        return found
    except TypeError:  # an annotation that cannot be a key
        return TypeAdapter(annotation)


# -- functions


def definition_of(fn: Callable[..., Any]) -> str | None:
    """16 hex of the digest of a function's code: comments, layout, docstring and decorators apart.

    ``None`` without source. It may differ between Python versions.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        return None
    if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)):
        tree.decorator_list = []
        first = tree.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            tree.body = tree.body[1:] or [ast.Pass()]
    return sha256(ast.unparse(tree).encode()).hexdigest()[:16]


class Signature:
    """How a function's arguments and result become JSON, and come back.

    :param ignore: parameters that are not part of a call's identity
    """

    def __init__(self, fn: Callable[..., Any], ignore: tuple[str, ...] = ()) -> None:
        self._fn = fn
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
        try:
            return get_type_hints(self._fn, include_extras=True)
        except Exception:  # noqa: BLE001 - a name that only a type checker knows: no annotation
            return dict(getattr(self._fn, "__annotations__", {}))

    @cached_property
    def _typed(self) -> frozenset[str]:
        """Parameters whose annotation says more than JSON's own types do."""
        return frozenset(
            name
            for name in self._names
            if _says_more(self._hints.get(name)) and name not in self._ignored
        )

    @cached_property
    def _result(self) -> TypeAdapter[Any] | None:
        annotation = self._hints.get("return")
        return _adapter(annotation) if _says_more(annotation) else None

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, defaults included.

        :raises TypeError: they do not fit, as the call itself would say
        """
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
                f"input of step {self._name}: {path}: {problem} cannot be compared with an earlier "
                "execution's: leave it out with @step(ignore=...), give the call a key, or "
                f"{_REMEDY}"
            )
            raise StepInputError(msg, path) from None

    def captured(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> msgspec.Raw:
        """A call's inputs as JSON, for the log; only what has a canonical form, which digests had."""
        bound = self.bind(args, kwargs)
        for name in self._ignored:
            bound.pop(name, None)
        self._through_annotations(bound)
        return msgspec.Raw(canonical(bound))

    def _through_annotations(self, bound: dict[str, Any]) -> None:
        for name in self._typed:
            try:
                adapter = _adapter(self._hints[name])
                bound[name] = adapter.dump_python(bound[name], mode="python", warnings="none")
            except Exception:  # noqa: BLE001, PERF203 - an odd annotation: the value speaks for itself
                continue

    def result_json(self, value: object) -> bytes:
        """Write a result.

        :raises StepResultError: it cannot be stored, or is not what its annotation says
        """
        try:
            if self._result is None:
                return to_json(value)
            data = self._result.dump_json(value, warnings="error")
            if b"null" in data:  # pydantic writes a NaN so
                _refuse_nan(self._result.dump_python(value, mode="python", warnings="none"))
            return data
        except (TypeError, ValueError, RecursionError) as error:
            raise StepResultError(*self._refusal("result", value, error, self._result)) from None

    def result_from_json(self, data: bytes) -> Any:
        """Read a stored result back.

        :raises StepResultError: it does not fit the annotation (any more)
        """
        if self._result is None:
            return from_json(data)
        try:
            return self._result.validate_json(data)
        except ValueError as error:
            msg = (
                f"the stored result of {self._name} does not fit its annotation (any more): "
                f"{error}. Give the step a new name, or undo the change"
            )
            raise StepResultError(msg, "$") from None

    def inputs_json(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Write a workflow's inputs, as an object by parameter name.

        :raises WorkflowInputError: a value cannot be stored, or is not what its annotation says
        :raises TypeError: the arguments do not fit
        """
        parts = []
        for name, value in self.bind(args, kwargs).items():
            hint = self._hints.get(name)
            adapter = _adapter(hint) if _says_more(hint) and not self._variadic(name) else None
            given = list(value) if type(value) is tuple and self._variadic(name) else value
            try:
                if adapter is None:
                    data = to_json(given)
                else:
                    data = adapter.dump_json(given, warnings="error")
                    if b"null" in data:
                        _refuse_nan(adapter.dump_python(given, mode="python", warnings="none"))
            except (TypeError, ValueError, RecursionError) as error:
                what = f"input {name!r}"
                raise WorkflowInputError(*self._refusal(what, value, error, adapter)) from None
            parts.append(b"%b:%b" % (json.dumps(name).encode(), data))
        return b"{" + b",".join(parts) + b"}"

    def call_with(self, inputs: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn stored inputs into the arguments of a call.

        :raises WorkflowInputError: they do not fit the function's parameters (any more)
        """
        stored = from_json(inputs)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        try:
            for name, parameter in self._parameters.items():
                if name not in stored:
                    continue
                value = self._read_input(name, stored[name])
                if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                    args.extend(value)
                elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    kwargs[name] = value
                else:
                    args.append(value)
            self._signature.bind(*args, **kwargs)
        except (TypeError, ValueError) as error:
            msg = f"the stored inputs do not fit {self._name} (any more): {error}"
            raise WorkflowInputError(msg, "$") from None
        return tuple(args), kwargs

    def _read_input(self, name: str, value: object) -> Any:
        hint = self._hints.get(name)
        if not _says_more(hint) or self._variadic(name):
            return value
        return _adapter(hint).validate_json(to_json(value))

    def _variadic(self, name: str) -> bool:
        return self._parameters[name].kind in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }

    def _refusal(
        self, what: str, value: object, error: Exception, adapter: TypeAdapter[Any] | None
    ) -> tuple[str, str]:
        if isinstance(error, _NotNativeError):
            path, problem = error.path, error.problem
        elif adapter is not None and "UnexpectedValue" in str(error):
            path, problem = "$", f"it is not what its annotation says: {error}"
        else:
            path, problem = find_unstorable(value) or ("$", str(error))
        return (
            f"{what} of {self._name} cannot be stored: {path}: {problem}; {_REMEDY}"
            + (", or mark the step @step(persist=False)" if what == "result" else ""),
            path,
        )


def _says_more(annotation: Any) -> bool:
    """Whether an annotation can hold what JSON's own types cannot."""
    try:
        return annotation is not None and annotation not in _NATIVE
    except TypeError:
        return True


def _refuse_nan(value: object, path: str = "$") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotNativeError(path, f"{value} has no place in JSON")
    for step, item in _items(value):
        _refuse_nan(item, path + step)


def find_unstorable(value: object, path: str = "$", depth: int = MAX_DEPTH) -> tuple[str, str] | None:
    """The first place inside ``value`` that pydantic cannot write as JSON: ``(path, type)``."""
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"{value} has no place in JSON"
    if depth == 0:
        return path[:80], f"nested deeper than {MAX_DEPTH} levels"
    for step, item in _items(value):
        found = find_unstorable(item, path + step, depth - 1)
        if found:
            return found
    try:
        _any_adapter().dump_json(value)
    except Exception:  # noqa: BLE001 - whatever it is, this is the place
        kind = type(value)
        return path, kind.__qualname__ if kind.__module__ == "builtins" else (
            f"{kind.__module__}.{kind.__qualname__}"
        )
    return None


def _items(value: object) -> list[tuple[str, object]]:
    """The parts of a container, each with the step that leads to it."""
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
