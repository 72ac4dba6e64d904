"""A call of a step as bytes, and back: pickled by the driver, loaded by the worker.

Classes and functions are pickled by their names. A module that has no name of its own in another
process, because it is a script, is found there by its file.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NoReturn

from tapps_otel import settings
from tapps_otel.errors import StepInputError
from tapps_otel.run.import_path import address_of, load_module
from tapps_otel.run.pickling import PickledByName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapps_otel.run.step import Step
    from tapps_otel.settings_model import Settings
    from tapps_otel.settings_types import Redaction, SpanFilter

__all__ = ["Call", "CallPickler", "Incoming", "hold_back", "modules_of"]


@dataclass(eq=False, slots=True)
class Call:
    """A call of a step."""

    step: Step[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class CallPickler:
    """Pickles calls, each with the settings that say what must not leave the worker."""

    def __init__(self) -> None:
        self._known: tuple[Settings, bytes] | None = None

    def dump(self, call: Call) -> bytes:
        """Pickle a call.

        :raises StepInputError: it cannot be pickled
        """
        try:
            return self._settings_pickled() + _pickled((call.step, call.args, call.kwargs))
        except Exception as error:  # of an object's own code
            path = _place_of_fault(call)
            msg = (
                f"step {call.step.spec.name!r} cannot be submitted: {path}: {error}. A worker gets "
                "the call pickled: give it what can be pickled, and let the step open connections, "
                "files and locks itself"
            )
            raise StepInputError(msg, path) from error

    def _settings_pickled(self) -> bytes:
        config, known = settings.current(), self._known
        if known is None or known[0] is not config:
            span_filter = config.span_filter if _is_picklable(config.span_filter) else hold_back
            known = self._known = config, _pickled((config.redact, span_filter))
        return known[1]


def hold_back(_: Any) -> NoReturn:
    """Let no span leave, in place of a filter that cannot be pickled.

    :raises ValueError: in any case
    """
    raise ValueError("it is a function that cannot be pickled for a worker")


def _place_of_fault(call: Call) -> str:
    """Name the argument that cannot be pickled; ``$`` if it is none of them."""
    with suppress(TypeError, ValueError):
        bound = inspect.signature(call.step).bind(*call.args, **call.kwargs)
        for name, value in bound.arguments.items():
            if not _is_picklable(value):
                return f"$.{name}"
    return "$"


def _is_picklable(value: object) -> bool:
    try:
        _pickled(value)
    except Exception:  # noqa: BLE001 - of an object's own code
        return False
    return True


def _pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Pickle steps by their names, as functions."""
        return value.reduce_to_name() if isinstance(value, PickledByName) else NotImplemented


def modules_of(step: Step[..., Any]) -> dict[str, str]:
    """Addresses of modules that another process may not find by the names that they have here."""
    found = {}
    for name in ("__main__", step.__module__):
        address = address_of(sys.modules.get(name))
        if address is not None and address != name:
            found[name] = address
    return found


class Incoming:
    """A call that has come to a worker.

    What must not leave comes first: it is needed if the rest raises something.

    :param modules: addresses of modules, as :func:`modules_of` gave them to the driver
    """

    def __init__(self, data: bytes, modules: Mapping[str, str]) -> None:
        self._file, self._modules = io.BytesIO(data), modules
        self.redact: bool | Redaction
        self.span_filter: SpanFilter | str | None
        self.redact, self.span_filter = self._load()

    def call(self) -> Call:
        """Load the call.

        :raises Exception: whatever its modules and objects raise
        """
        return Call(*self._load())

    def _load(self) -> Any:
        return _Unpickler(self._file, self._modules).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, modules: Mapping[str, str]) -> None:
        super().__init__(file)
        self._modules = modules

    def find_class(self, module_name: str, name: str) -> Any:
        """Find what has a name in a module."""
        address = self._modules.get(module_name)
        if address is None:
            return super().find_class(module_name, name)
        return reduce(getattr, name.split("."), _module_at(address))


def _module_at(address: str) -> Any:
    main = sys.modules["__main__"]
    return main if address_of(main) == address else load_module(address)
