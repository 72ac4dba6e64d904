"""Whether a step changed its arguments while it ran: on resume they would stay as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel.run.codecs.native import image

if TYPE_CHECKING:
    from tapps_otel.run.values import Part

__all__ = ["changed", "watch"]

_SMALL: Final = 64 * 1024  # characters of forms that are worth a second look
_unsorted: Final = msgspec.json.Encoder().encode


def watch(parts: list[Part]) -> list[Part] | None:
    """The parts of a call's inputs, to be looked at again; ``None`` if they are too large."""
    size = 0
    for part in parts:
        size += len(part.form)
        if part.image is None:
            part.image = _image(part.value)
    return parts if size <= _SMALL else None


def changed(parts: list[Part]) -> list[str]:
    """Names of the parameters whose values are others now."""
    try:  # nearly always, nothing has changed that has an image
        for part in parts:
            if part.image is None or part.image != image(part.value):
                break
        else:
            return []
    except Exception:  # noqa: BLE001, S110 - an object inside, maybe of a class of the user's
        pass
    return sorted({part.name for part in parts if _differs(part)})


def _differs(part: Part) -> bool:
    # Equal images are of equal forms; different ones may be, too.
    if part.image is not None and part.image == _image(part.value):
        return False
    try:
        return part.write(part.value) != part.form
    except Exception:  # noqa: BLE001 - of users' classes: it had a form
        return True


def _image(value: Any) -> bytes | None:
    """An image of a value that is quicker to make than its form; ``None`` if there is none."""
    for make in (image, _unsorted, _image_of_attributes):
        try:
            return make(value)
        except Exception:  # noqa: BLE001, S112 - an object inside, maybe of a class of the user's
            continue
    return None


def _image_of_attributes(value: Any) -> bytes:
    kind = type(value)
    make: object = kind.__new__
    if make is not object.__new__ or getattr(kind, "__slots__", None):
        raise ValueError("an object with more than attributes")
    return _unsorted(vars(value))
