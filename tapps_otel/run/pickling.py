"""Pickling decorated functions by their names, as pickle does with functions."""

from __future__ import annotations

import logging
import os
import sys
from abc import abstractmethod
from functools import reduce
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, Self

from tapps_otel.run.import_path import load_object
from tapps_otel.run.outside import is_any_open

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PickledByName"]

_log = logging.getLogger("tapps_otel")
_warned: set[str] = set()


class PickledByName:
    """A decorated function, pickled by the name that it has in its module.

    Like a function it is not copied.
    """

    @abstractmethod
    def _remake(self, original: Self) -> Callable[[], Self]:
        """What makes this copy with other options again, from the one that has the name."""

    def __reduce__(self) -> tuple[Any, ...]:
        reduced = self.reduce_to_name()
        if isinstance(reduced, str):
            return _load, (self.__module__, reduced, os.getpid() if is_any_open() else None)
        return reduced

    def reduce_to_name(self) -> str | tuple[Any, ...]:
        """What pickle makes of a function: its name; of a copy with other options, a call.

        :raises PicklingError: it is not found by its name
        """
        module = getattr(self, "__module__", None) or "?"
        name: str = getattr(self, "__qualname__", None) or repr(self)
        try:
            found: Any = reduce(getattr, name.split("."), sys.modules[module])
        except (KeyError, AttributeError):
            found = None
        if found is self:
            return name
        wrapped = getattr(self, "__wrapped__", None)
        if isinstance(found, type(self)) and getattr(found, "__wrapped__", None) is wrapped:
            return self._remake(found), ()
        msg = (
            f"{self!r} cannot be pickled: in another process it is found by its name, and "
            f"{name!r} of module {module!r} is not it. Define it at the top level of a module"
        )
        raise PicklingError(msg)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _load(module: str, name: str, pid: int | None) -> Any:
    """Find a decorated function by its name.

    :param pid: of the process that pickled it while it had an open run
    """
    found = load_object(f"{module}:{name}")
    if pid not in {None, os.getpid()} and name not in _warned:
        _warned.add(name)
        _log.warning(
            "%r comes from another process, where a run was open: called here it is not a step of "
            "that run, has no record in its log, and runs again on resume. To make it one, submit "
            "it to tapps_otel.bind(executor); or make a step, in the run's own process, of the "
            "function that submits it and returns its result",
            found,
        )
    return found
