"""Objects that a log could keep only in part: reading what it could not keep is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Final, NoReturn

from tapps_otel.run.failures.exception_parts import BASES, dict_of, names_of_bases, names_of_fields

__all__ = [
    "PartialMapping",
    "Refuse",
    "lost_details",
    "partial_class",
    "partial_exception",
    "stand_in",
]

Refuse = Callable[[str, str], NoReturn]  # gets the name of what is lost, and why it is
_LOST: Final = "_tapps_lost"


class _Partial:
    """First base of classes made here: the hook of a user's class does not see them."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        pass


class _LostDetail:
    """Refuses to be read; what the program assigns is read as usual."""

    def __init__(self, name: str, reason: str, refuse: Refuse) -> None:
        self._name, self._reason, self._refuse = name, reason, refuse

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else self._refuse(self._name, self._reason)


def partial_class(
    kinds: tuple[type, ...],
    lost: dict[str, str],
    refuse: Refuse,
    body: Mapping[str, Any],
    *,
    prefix: str = "",
) -> Any:
    """A class for one object, which passes for the first of ``kinds`` and inherits from all.

    :param lost: what could not be kept, each with the reason
    :param body: more of the class
    :param prefix: of the names of what is lost, in a refusal
    """
    kind = kinds[0]
    details = {name: _LostDetail(prefix + name, why, refuse) for name, why in lost.items()}
    made = {
        _LOST: lost,
        BASES: names_of_bases(kind),
        "__slots__": (),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__class__": property(lambda _: kind),
    }
    own = details | made | dict(body)
    return type.__new__(type(kind), own["__qualname__"].rpartition(".")[2], (_Partial, *kinds), own)


def partial_exception(
    kinds: tuple[type, ...], lost: dict[str, str], refuse: Refuse, message: str
) -> Any:
    """A class for one exception, with its text as it was."""
    return partial_class(kinds, lost, refuse, _body(lost, refuse, message))


def _body(lost: dict[str, str], refuse: Refuse, message: str) -> dict[str, Any]:
    body: dict[str, Any] = {"__str__": lambda _: message}
    gone = [name for name in lost if name != "args" and name[:2] != "__"]
    if gone:
        body["__dict__"] = property(lambda _: refuse("__dict__", f"{gone[0]}: {lost[gone[0]]}"))
    return body


def stand_in(
    name: str,
    bases: tuple[type, ...],
    lost: dict[str, str],
    refuse: Refuse,
    message: str,
    *,
    all_bases: list[str],
    find: Callable[[], Any],
) -> Any:
    """A class for one exception, in place of its own class, which is not loaded.

    What the class itself says (a constant, a property, a method) is not known: reading it is
    refused as what is lost is.

    :param bases: those of its bases that are loaded
    :param all_bases: the names of all
    :param find: finds the class, which may be loaded later
    """
    module, _, own = name.rpartition(".")
    reason = f"its class {name} is not loaded: import it before the workflow runs"

    def get(error: Any, attribute: str) -> Any:
        if attribute[:1] != "_" and attribute not in lost and attribute not in _names_of(error):
            refuse(attribute, reason)
        return BaseException.__getattribute__(error, attribute)

    body = _body(lost, refuse, message) | {
        BASES: all_bases,
        "__module__": module,
        "__qualname__": own,
        "__doc__": None,
        "__class__": property(lambda error: find() or type(error)),
        "__getattribute__": get,
        "type": name,
        "message": message,
    }
    return partial_class(bases, lost, refuse, body)


def _names_of(error: BaseException) -> set[str]:
    """What an exception has whatever its class says."""
    group = vars(BaseExceptionGroup) if isinstance(error, BaseExceptionGroup) else {}
    fields = names_of_fields(type(error))
    return {*dict_of(error), *fields, *group, *vars(BaseException), "type", "message"}


def lost_details(value: object) -> dict[str, str]:
    """What an earlier log could not keep of this object, each with the reason."""
    lost = vars(type(value)).get(_LOST)
    if not lost:
        return {}
    own = dict_of(value) if isinstance(value, BaseException) else vars(value)
    return {name: why for name, why in lost.items() if name not in own}


class PartialMapping(MutableMapping[str, Any]):
    """A mapping that has lost some of its values.

    :param known: the others
    """

    def __init__(self, known: dict[str, Any], lost: dict[str, str], refuse: Refuse) -> None:
        self._known, self._lost, self._refuse = known, dict(lost), refuse

    def parts(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The values that there are, and the reasons for which others are lost."""
        return self._known, self._lost

    def __getitem__(self, key: str) -> Any:
        if key in self._lost:
            self._refuse(key, self._lost[key])
        return self._known[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._lost.pop(key, None)
        self._known[key] = value

    def __delitem__(self, key: str) -> None:
        if self._lost.pop(key, None) is None:
            del self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._known, *self._lost])

    def __len__(self) -> int:
        return len(self._known) + len(self._lost)
