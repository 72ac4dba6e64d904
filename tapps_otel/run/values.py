"""A function's arguments and result as JSON by way of its annotations, and digests of calls. Pure.

Nothing is pickled. What is written is read back and compared: it is stored only if the value that
comes back is equal and of the same class. What the annotation alone shows to be impossible is
refused before anything runs.
"""

from __future__ import annotations

import inspect
import json
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from types import FunctionType, GenericAlias, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from tapps_otel.errors import StepInputError, StepResultError, WorkflowInputError
from tapps_otel.run.codecs.native import NotStorableError, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapps_otel.run.codecs.faithful import Faithful

__all__ = ["Signature"]

_quoted = json.encoder.encode_basestring_ascii
# The canonical form of scalars, which most calls are made with: no encoder is asked for those.
_SCALAR_FORMS: Final[dict[type, Callable[[Any], str]]] = {
    str: _quoted,
    int: int.__repr__,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}
_REMEDY: Final = (
    "annotate it with a type that can be written as JSON, return JSON values, or register a codec "
    "(register_codec)"
)


class _Hints:
    """A function's annotations; of each that cannot be resolved, why."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.found: dict[str, Any] = {}
        self.unresolved: dict[str, str] = {}
        # A name may be local to the function around it.
        names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
        local: dict[str, Any] = {}
        for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
            with suppress(ValueError):  # a cell that is not filled yet
                local[name] = cell.cell_contents
        try:
            self.found = get_type_hints(fn, localns=local, include_extras=True)
        except Exception:  # noqa: BLE001 - one bad name spoils them all: ask for each alone
            for name, annotation in getattr(fn, "__annotations__", {}).items():
                alone = SimpleNamespace(__annotations__={name: annotation})
                names_here = getattr(fn, "__globals__", {})
                try:
                    self.found |= get_type_hints(alone, names_here, local, include_extras=True)
                except Exception as error:  # noqa: BLE001 - whatever an annotation does
                    self.unresolved[name] = (
                        f"its annotation {annotation!r:.100} cannot be resolved ({error}). Import "
                        "what it names when the program runs too, not under TYPE_CHECKING alone"
                    )

    def faithful(self, name: str, inside: Callable[[Any], Any] = lambda hint: hint) -> Faithful:
        """What writes and reads a parameter's values, or those of ``return``.

        :param inside: makes the annotation of the whole of that of one argument (``*args``)
        """
        from tapps_otel.run.codecs import faithful, refused  # heavy: not before the first call

        if name in self.unresolved:
            return faithful.Faithful(refused.RefusedCodec(self.unresolved[name]))
        return faithful.faithful(inside(self.found.get(name, Any)))


class Signature:
    """How a function's arguments and result become JSON, and come back.

    :param ignore: parameters that are not part of a call's identity
    """

    def __init__(self, fn: Callable[..., Any], ignore: tuple[str, ...] = ()) -> None:
        # Only a reference: what is known of a function must not keep it alive.
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
        self._ignored = frozenset(ignore)
        self._receiver = next((name for name in self._names[:1] if name in {"self", "cls"}), None)
        if self._receiver in self._ignored:
            self._receiver = None

    @cached_property
    def _hints(self) -> _Hints:
        return _Hints(self._fn())

    @cached_property
    def _labels(self) -> list[tuple[int, str]] | None:
        """Places of the arguments in the canonical form's order, each with what precedes it.

        ``None`` where the form is not that simple.
        """
        if not self._simple or self._ignored or self._defaults or self._receiver:
            return None
        places = [self._names.index(name) for name in sorted(self._names)]
        return [
            (place, f"{',' if at else '{'}{_quoted(self._names[place])}:")
            for at, place in enumerate(places)
        ]

    @cached_property
    def _result(self) -> Faithful:
        return self._hints.faithful("return")

    def _argument(self, name: str) -> Faithful:
        kind = self._parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return self._hints.faithful(name, lambda hint: GenericAlias(list, (hint,)))
        if kind is inspect.Parameter.VAR_KEYWORD:
            return self._hints.faithful(name, lambda hint: GenericAlias(dict, (str, hint)))
        return self._hints.faithful(name)

    @cached_property
    def _canonical(self) -> ModuleType:
        from tapps_otel.run.codecs import canonical  # heavy: not before the first call

        return canonical

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, defaults included.

        :raises TypeError: they do not fit, as the call itself would say
        """
        if self._simple and not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args))  # noqa: B905 - they are as many, and it is quicker
        if self._simple and len(args) + len(kwargs) <= len(self._names):
            bound = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
            if len(bound) == len(self._names) and (
                not kwargs or kwargs.keys() <= set(self._names[len(args) :])
            ):
                return bound
        full = self._signature.bind(*args, **kwargs)
        full.apply_defaults()
        return dict(full.arguments)

    def digest(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], home: str = ""
    ) -> tuple[str, object]:
        """Digest of a call's inputs, without what is ignored and what is left at its default.

        :param home: tells functions of the same name apart: of which module it is
        :returns: with it the object whose method is called, where nothing tells that from others
            of its class; else ``None``
        :raises StepInputError: a value without a canonical form
        :raises TypeError: the arguments do not fit
        """
        labels = self._labels
        if labels is not None and not kwargs and len(args) == len(labels):
            form = _form_of_scalars(args, labels)
            if form is not None:
                return sha256(f"{home}{form}".encode()).hexdigest(), None
        bound = self._identifying(args, kwargs)
        formless = self._replace_receiver(bound)
        try:
            return sha256(home.encode() + self._canonical.canonical(bound)).hexdigest(), formless
        except Exception as error:
            path, problem = self._canonical.find_formless(bound) or ("$", str(error))
            msg = (
                f"input of step {self._name}: {path}: {problem}: it cannot be compared with an "
                "earlier execution's. Leave it out with @step(ignore=...), give the call a key, or "
                f"{_REMEDY}"
            )
            raise StepInputError(msg, path) from error

    def _replace_receiver(self, bound: dict[str, Any]) -> object:
        """Put the digest of a method's object in its place; return the object if it has none."""
        found = bound.pop(self._receiver, None) if self._receiver is not None else None
        if found is None or isinstance(found, type):  # of a class method: its name has the class
            return None
        digest = self._canonical.digest_of_object(found)
        if digest is None:
            return found
        bound[str(self._receiver)] = digest
        return None

    def captured(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
        """A call's inputs as JSON, for the log; ``None`` if they have no such form."""
        try:
            bound = self._identifying(args, kwargs)
            self._replace_receiver(bound)
            form: bytes = self._canonical.canonical(bound)
        except Exception:  # noqa: BLE001 - of users' classes; a call with a key may have any inputs
            return None
        return form

    def _identifying(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that tell one call from another."""
        return {
            name: value
            for name, value in self.bind(args, kwargs).items()
            if name not in self._ignored and not self._is_default(name, value)
        }

    def _is_default(self, name: str, value: object) -> bool:
        """Whether a parameter is at its default: one that is new then matches old records."""
        if name not in self._defaults:
            kind = self._parameters[name].kind
            rest = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
            return kind in rest and not value
        default = self._defaults[name]
        if value is default:
            return True
        try:
            return type(value) is type(default) and bool(value == default)
        except Exception:  # noqa: BLE001 - of a class of the user's: it counts
            return False

    def check_result(self) -> None:
        """Refuse, before anything runs, a result that cannot be stored whatever it is.

        :raises StepResultError: naming what its annotation makes impossible
        """
        fault = self._result.unfit
        if fault is not None:
            raise StepResultError(
                f"result of {self._name} cannot be stored: {fault}; {_REMEDY} (or, for a step: "
                "@step(persist=False))",
                "$",
            )

    def result_json(self, value: object) -> bytes:
        """Write a result.

        :raises StepResultError: it cannot be stored, or would come back different
        """
        try:
            return self._result.write(value)
        except NotStorableError as error:
            msg = (
                f"result of {self._name} cannot be stored: {error}. Its code has run, and what "
                f"that did is done: {_REMEDY} (or, for a step: @step(persist=False))"
            )
            raise StepResultError(msg, error.path) from error.__cause__

    def result_from_json(self, data: bytes) -> Any:
        """Read a stored result back.

        :raises StepResultError: it no longer fits the annotation
        """
        try:
            return self._result.read(data)
        except ValueError as error:
            msg = (
                f"the stored result of {self._name} does not fit its annotation (has it changed?): "
                f"{error}. Undo "
                "the change, give the step a new name, or let it run again: "
                "`tapps-otel resolve RUN STEP --rerun`"
            )
            raise StepResultError(msg, "$") from error

    def inputs_json(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Write a workflow's inputs, as an object by parameter name.

        :raises WorkflowInputError: a value cannot be stored, or would come back different
        :raises TypeError: the arguments do not fit
        """
        parts = []
        for name, value in self.bind(args, kwargs).items():
            rest = self._parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            try:
                data = self._argument(name).write(list(value) if rest else value)
            except NotStorableError as error:
                path = f"$.{name}{error.path[1:]}"
                msg = f"inputs of {self._name} cannot be stored: {path}: {error.problem}; {_REMEDY}"
                raise WorkflowInputError(msg, path) from error.__cause__
            parts.append(b"%b:%b" % (json.dumps(name).encode(), data))
        return b"{" + b",".join(parts) + b"}"

    def call_with(self, inputs: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn stored inputs into the arguments of a call.

        :raises WorkflowInputError: they no longer fit the function's parameters
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
                value = self._argument(name).read(to_json(stored[name]))
                if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                    args.extend(value)
                elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                elif parameter.kind is inspect.Parameter.KEYWORD_ONLY or left_out:
                    kwargs[name] = value  # after one that is left out, places do not count
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


def _form_of_scalars(args: tuple[Any, ...], labels: list[tuple[int, str]]) -> str | None:
    """The canonical form of the commonest calls, put together by hand; ``None`` for others."""
    form = ""
    try:
        for place, label in labels:
            form += label + _SCALAR_FORMS[type(args[place])](args[place])
    except (KeyError, ValueError):  # no scalar, or an integer of too many digits
        return None
    return (form or "{") + "}"


def _reference(fn: Callable[..., Any]) -> Callable[[], Any]:
    fn = getattr(fn, "__func__", fn)
    return weakref.ref(fn) if isinstance(fn, FunctionType) else lambda: fn
