"""Exceptions that a log could keep only in part: reading what it could not keep is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

__all__ = ["Refuse", "lost_details", "partial_class"]

Refuse = Callable[[str, str], NoReturn]  # gets the name of what is lost, and why it is
_LOST: Final = "_tapps_lost"


class _Partial:
    """First base of classes made here: their making is no business of the user's class."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        pass


class _LostDetail:
    """Refuses to be read; what the program assigns is read as ever."""

    def __init__(self, name: str, reason: str, refuse: Refuse) -> None:
        self._name, self._reason, self._refuse = name, reason, refuse

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else self._refuse(self._name, self._reason)


def partial_class(
    kind: type[BaseException], message: str, lost: dict[str, str], refuse: Refuse
) -> Any:
    """A subclass that passes for ``kind``: for one exception, with its text as it was.

    :param lost: what could not be kept, each with the reason
    """
    details = {name: _LostDetail(name, reason, refuse) for name, reason in lost.items()}
    body = {
        **details,
        _LOST: lost,
        "__slots__": (),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__class__": property(lambda _: kind),
        "__str__": lambda _: message,
    }
    return type.__new__(type(kind), kind.__name__, (_Partial, kind), body)


def lost_details(error: BaseException) -> dict[str, str]:
    """What an earlier log could not keep of this exception, each with the reason."""
    own = vars(type(error))
    return {name: why for name, why in own.get(_LOST, {}).items() if name not in vars(error)}
