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
from math import isfinite
from types import FunctionType, GenericAlias, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from msgspec import Struct

from tapps_otel.errors import StepInputError, StepResultError, WorkflowInputError
from tapps_otel.run.codecs.native import NotStorableError, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapps_otel.run.codecs.faithful import Faithful

__all__ = ["Part", "Signature"]

_quoted = json.encoder.encode_basestring_ascii


def _float_form(value: float) -> str:
    if not isfinite(value):
        msg = f"{value} does not exist in JSON"
        raise ValueError(msg)
    return float.__repr__(value)


# The canonical form of scalars, which most calls are made with: no encoder is asked for those.
_SCALAR_FORMS: Final[dict[type, Callable[[Any], str]]] = {
    str: _quoted,
    int: int.__repr__,
    float: _float_form,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _: "null",
}
_REST: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_REMEDY: Final = (
    "annotate it with a type that can be written as JSON, return JSON values, or register a codec "
    "(register_codec)"
)


_Place = tuple[Any, str, str]  # index or name of an argument, its name, what precedes its form


class Part(Struct):
    """An input of a call that the function could change.

    :ivar form: what the digest was made of
    :ivar write: makes that
    :ivar image: of the value; ``None`` until it is needed
    """

    name: str
    value: Any
    form: str
    write: Callable[[Any], str | None]
    image: bytes | None = None


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
    :ivar _places: of a call's arguments in the canonical form's order; ``None`` if they depend on
        the call
    """

    __slots__ = ("__dict__", "_places")  # every call reads the second; the rest is in the first

    def __init__(self, fn: Callable[..., Any], ignore: tuple[str, ...] = ()) -> None:
        # Only a reference: what is known of a function must not keep it alive.
        self._fn = _reference(fn)
        self._name = getattr(fn, "__qualname__", repr(fn))
        self._signature, self._outer = _signatures(fn)
        self._parameters = self._signature.parameters
        self._kinds = {
            name: parameter.kind
            for signature in (self._outer, self._signature)
            if signature is not None
            for name, parameter in signature.parameters.items()
        }
        unknown = set(ignore) - set(self._kinds)
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
        self._orders: dict[tuple[str, ...], list[_Place]] = {}  # by what a call says
        self._required = self._parameters.keys() - self._defaults.keys()
        # What a call may say without being another one.
        self._optional = [
            name
            for name, kind in self._kinds.items()
            if name in ignore or name in self._defaults or kind in _REST
        ]
        self._receiver = next((name for name in self._names[:1] if name in {"self", "cls"}), None)
        if self._receiver in self._ignored:
            self._receiver = None
        depends = not self._simple or self._outer or self._optional or self._receiver
        places = {name: place for place, name in enumerate(self._names)}
        self._places = None if depends else _in_order(places)

    @cached_property
    def _hints(self) -> _Hints:
        return _Hints(self._fn())

    @cached_property
    def result(self) -> Faithful:
        """What writes and reads the function's results."""
        return self._hints.faithful("return")

    def _argument(self, name: str) -> Faithful:
        kind = self._kinds[name]
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
        try:
            full = self._signature.bind(*args, **kwargs)
        except TypeError:
            if self._outer is None:
                raise
            full = self._outer.bind(*args, **kwargs)
        full.apply_defaults()
        return dict(full.arguments)

    def digest(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], home: str = ""
    ) -> tuple[str, object, list[Part]]:
        """Digest of a call's inputs, without what is ignored and what is left at its default.

        :param home: tells functions of the same name apart: of which module it is
        :returns: with it the object whose method is called, where nothing tells that from others
            of its class, else ``None``; and those inputs that the function could change
        :raises StepInputError: a value without a canonical form
        :raises TypeError: the arguments do not fit
        """
        given: Any = args
        places, formless = self._places, None
        parts: list[Part] = []
        if places is None or kwargs or len(args) != len(places):
            given = bound = self._identifying(args, kwargs)
            formless = self._replace_receiver(bound, parts)
            names = tuple(bound)
            places = self._orders.get(names)
            if places is None:
                places = self._orders[names] = _in_order({name: name for name in names})
        form = home
        try:
            for place, name, label in places:
                value = given[place]
                write = _SCALAR_FORMS.get(type(value))
                if write is not None:
                    form += label + write(value)
                else:
                    text, image = self._canonical.form_and_image(value)
                    form += label + text
                    parts.append(Part(name, value, text, self._canonical.canonical_text, image))
        except Exception as error:
            raise self._formless_input(args, kwargs, error) from error
        form += "}" if places else "{}"  # in place: `form + "}"` would copy it
        return sha256(form.encode()).hexdigest(), formless, parts

    def parts(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Part]:
        """The inputs of a call with a key that the function could change."""
        kinds = {*map(type, args), *map(type, kwargs.values())}
        if kinds <= _SCALAR_FORMS.keys():
            return []
        try:
            return self.digest(args, kwargs)[2]
        except Exception:  # noqa: BLE001 - of users' classes; a call with a key may have any inputs
            return []

    def _formless_input(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
    ) -> StepInputError:
        bound = self._identifying(args, kwargs)
        self._replace_receiver(bound, [])
        path, problem = self._canonical.find_formless(bound) or ("$", str(error))
        msg = (
            f"input of step {self._name}: {path}: {problem}: it cannot be compared with an earlier "
            "execution's. Leave it out with @step(ignore=...), give the call a key, or "
            f"{_REMEDY}"
        )
        return StepInputError(msg, path)

    def _replace_receiver(self, bound: dict[str, Any], parts: list[Part]) -> object:
        """Put the digest of a method's object in its place; return the object if it has none.

        :param parts: gets the object, if it has one
        """
        found = bound.pop(self._receiver, None) if self._receiver is not None else None
        if found is None:
            return None
        write = self._canonical.digest_of_object
        digest, name = write(found), str(self._receiver)
        if digest is None:
            return found
        bound[name] = digest
        parts.append(Part(name, found, digest, write))
        return None

    def captured(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
        """A call's inputs as JSON, for the log; ``None`` if they have no such form."""
        try:
            bound = self._identifying(args, kwargs)
            self._replace_receiver(bound, [])
            form: bytes = self._canonical.canonical(bound)
        except Exception:  # noqa: BLE001 - of users' classes; a call with a key may have any inputs
            return None
        return form

    def _identifying(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that tell one call from another.

        :raises TypeError: they do not fit, as the call itself would say
        """
        # What is not given is at its default, and is left out, too.
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        fits = len(given) == len(args) + len(kwargs) and self._required <= given.keys()
        if not self._simple or not fits or not given.keys() <= self._parameters.keys():
            given = self.bind(args, kwargs)
        for name in self._optional:
            if name in given and (name in self._ignored or self._is_default(name, given[name])):
                del given[name]
        return given

    def _is_default(self, name: str, value: object) -> bool:
        """Whether a parameter is at its default: one that is new then matches old records."""
        if name not in self._defaults:
            return self._kinds[name] in _REST and not value
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
        fault = self.result.unfit
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
            return self.result.write(value)
        except NotStorableError as error:
            raise self.refusal(error) from error.__cause__

    def refusal(self, error: NotStorableError) -> StepResultError:
        """What to raise for a result that cannot be stored."""
        msg = (
            f"result of {self._name} cannot be stored: {error}. Its code has run, and what "
            f"that did is done: {_REMEDY} (or, for a step: @step(persist=False))"
        )
        return StepResultError(msg, error.path)

    def result_from_json(self, data: bytes) -> Any:
        """Read a stored result back.

        :raises StepResultError: it no longer fits the annotation
        """
        try:
            return self.result.read(data)
        except ValueError as error:
            msg = (
                f"the stored result of {self._name} does not fit its annotation (has it changed?): "
                f"{error}"
            )
            raise StepResultError(msg, "$") from error

    def inputs_json(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Write a workflow's inputs, as an object by parameter name, without what is ignored.

        :raises WorkflowInputError: a value cannot be stored, or would come back different
        :raises TypeError: the arguments do not fit
        """
        parts = []
        for name, value in self.bind(args, kwargs).items():
            if name in self._ignored:
                continue
            rest = self._kinds[name] is inspect.Parameter.VAR_POSITIONAL
            codec = self._argument(name)
            try:
                if codec.unfit is not None:
                    raise NotStorableError(codec.unfit)
                data = codec.write(list(value) if rest else value)
            except NotStorableError as error:
                path = f"$.{name}{error.path[1:]}"
                msg = (
                    f"inputs of {self._name} cannot be stored: {path}: {error.problem}; {_REMEDY}, "
                    f'or leave it out of the log with @workflow(ignore=("{name}",)): a resume asks '
                    "for it again"
                )
                raise WorkflowInputError(msg, path) from error.__cause__
            parts.append(b"%b:%b" % (json.dumps(name).encode(), data))
        return b"{" + b",".join(parts) + b"}"

    def inputs_match(self, stored: bytes, given: bytes) -> bool:
        """Whether the stored inputs of a run are those of a call.

        What is ignored does not count, nor what is new and left at its default.
        """
        then, now = (
            {name: part for name, part in from_json(data).items() if name not in self._ignored}
            for data in (stored, given)
        )
        canonical = self._canonical.canonical
        for name in now.keys() - then.keys():
            if canonical(now[name]) == self._default_form(name):
                del now[name]
        same: bool = canonical(then) == canonical(now)
        return same

    def _default_form(self, name: str) -> bytes | None:
        """The canonical form of a stored default; ``None`` if there is none."""
        if self._kinds.get(name) in _REST:
            return b"[]" if self._kinds[name] is inspect.Parameter.VAR_POSITIONAL else b"{}"
        if name not in self._defaults:
            return None
        try:
            written = self._argument(name).write(self._defaults[name])
        except NotStorableError:
            return None
        form: bytes = self._canonical.canonical(from_json(written))
        return form

    def call_with(self, inputs: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn stored inputs into the arguments of a call; what is not stored has its default.

        :raises WorkflowInputError: they no longer fit the function's parameters, or one without a
            default was left out of the log
        """
        stored = from_json(inputs)
        both = [one for one in (self._signature, self._outer) if one is not None]
        fitting = (one for one in both if stored.keys() <= one.parameters.keys())
        signature = next(fitting, self._signature)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        try:
            for name, parameter in signature.parameters.items():
                if name not in stored and parameter.kind in _REST:
                    continue
                value = self._argument_from(stored, parameter)
                if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                    args.extend(value)
                elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    kwargs[name] = value
                else:
                    args.append(value)
            unknown = stored.keys() - signature.parameters.keys()
            if unknown:
                raise TypeError(f"it has no parameter {sorted(unknown)}")
        except WorkflowInputError:
            raise
        except (TypeError, ValueError) as error:
            msg = f"the stored inputs do not fit {self._name}: {error}"
            raise WorkflowInputError(msg, "$") from None
        return tuple(args), kwargs

    def _argument_from(self, stored: Mapping[str, Any], parameter: inspect.Parameter) -> Any:
        name = parameter.name
        if name in stored:
            return self._argument(name).read(to_json(stored[name]))
        if parameter.default is not inspect.Parameter.empty:
            return parameter.default
        if name in self._ignored:
            raise WorkflowInputError(
                f"{self._name} needs {name!r}, which ignore= leaves out of the log. Resume the run "
                f"by calling the workflow with it: .options(workflow_id=...)(..., {name}=...)",
                f"$.{name}",
            )
        raise TypeError(f"missing a required argument: {name!r}")


def _in_order(places: Mapping[str, Any]) -> list[_Place]:
    """Places of arguments in the canonical form's order, each with what precedes it there."""
    return [
        (places[name], name, f"{',' if at else '{'}{_quoted(name)}:")
        for at, name in enumerate(sorted(places))
    ]


def _reference(fn: Callable[..., Any]) -> Callable[[], Any]:
    fn = getattr(fn, "__func__", fn)
    return weakref.ref(fn) if isinstance(fn, FunctionType) else lambda: fn


def _signatures(fn: Callable[..., Any]) -> tuple[inspect.Signature, inspect.Signature | None]:
    """The signature that a function's calls are bound to, and what to try if it does not fit.

    Where a decorator follows ``functools.wraps``, the function under it says what its ``*args``
    are, unless the decorator passes arguments of its own.
    """
    inner = inspect.signature(fn)
    if not hasattr(fn, "__wrapped__"):
        return inner, None
    try:
        outer = inspect.signature(fn, follow_wrapped=False)
    except ValueError:  # of an object that is not written in Python, as of functools.cache
        return inner, None
    if any(parameter.kind in _REST for parameter in outer.parameters.values()):
        return inner, outer
    return outer, None
