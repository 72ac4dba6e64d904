"""Whether a step changed its arguments while it ran: on resume they would stay as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.run.codecs.native import from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapps_otel.run.values import Signature

__all__ = ["WatchedArguments", "watch"]

_SMALL: Final = 64 * 1024  # bytes of a form that is worth a second look
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})
_encode: Final = msgspec.json.Encoder().encode


class WatchedArguments:
    """Arguments of one call, with their form before the step ran."""

    __slots__ = ("_before", "_call", "_form")

    def __init__(
        self, signature: Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any], form: bytes
    ) -> None:
        self._call, self._form = (signature, args, kwargs), form
        self._before = _image(args, kwargs)

    def changed(self) -> list[str]:
        """Names of the parameters whose values are others now."""
        signature, args, kwargs = self._call
        if self._before is not None and self._before == _image(args, kwargs):
            return []
        if signature.captured(args, kwargs) == self._form:
            return []
        then, now = from_json(self._form), signature.forms(args, kwargs)
        return sorted(
            name for name in {**then, **now} if then.get(name, self) != now.get(name, self)
        )


def watch(
    signature: Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    form: bytes | None = None,
) -> WatchedArguments | None:
    """Watch the arguments of a call; ``None`` if they cannot change, or are too large to compare.

    :param form: their canonical form, if it is known
    """
    if form is None:
        if _SCALARS.issuperset(map(type, args)) and _SCALARS.issuperset(map(type, kwargs.values())):
            return None
        form = signature.captured(args, kwargs)
    if form is None or len(form) > _SMALL:
        return None
    return WatchedArguments(signature, args, kwargs, form)


def _image(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
    """An image of arguments that is quicker to compare than their forms.

    ``None`` if there is none. Where it has changed, the forms may still be equal.
    """
    values = (*args, *kwargs.values()) if kwargs else args
    try:
        return _encode(values)
    except Exception:  # noqa: BLE001 - an object inside, maybe of a class of the user's
        try:
            return _encode([_state(value) for value in values])
        except Exception:  # noqa: BLE001 - of users' classes
            return None


def _state(value: Any) -> Any:
    kind = type(value)
    if kind in _CONTAINERS or kind in _SCALARS:
        return value
    make: object = kind.__new__
    attributes = getattr(value, "__dict__", None)
    if attributes is not None and make is object.__new__ and not getattr(kind, "__slots__", ()):
        return attributes
    raise ValueError("an object with more than attributes")
