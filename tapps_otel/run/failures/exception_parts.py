"""The parts of an exception, read and set past the code of its class. Pure.

A class may override anything; what is read here is what the interpreter itself uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

__all__ = [
    "BASES",
    "MARK",
    "args_of",
    "attributes_of",
    "cut",
    "dict_of",
    "links_of",
    "members_of",
    "message_of",
    "names_of_bases",
    "names_of_fields",
    "set_args",
    "set_attribute",
    "set_link",
    "type_name",
]

BASES: Final = "_tapps_bases"  # on a class that stands for another: the names of that one's bases
MARK: Final = "_tapps_left"  # on an exception: the steps that it left, as (workflow_id, step_id)
_FIELDS: Final = (MemberDescriptorType, GetSetDescriptorType)
_TEXT_LIMIT: Final = 16 * 1024  # characters of a message or a stack
_ELSEWHERE: Final = {MARK, "__notes__", "exceptions"}  # written by names of their own
_OWN: Final[dict[str, Any]] = {**vars(BaseException)}
_MEMBERS: Final[Any] = vars(BaseExceptionGroup)["exceptions"]


def type_name(kind: type) -> str:
    """A class's name with its module, as the ``type`` field has it; built-ins without it."""
    own = kind.__qualname__
    return own if kind.__module__ == "builtins" else f"{kind.__module__}.{own}"


def names_of_bases(kind: type) -> list[str]:
    """Names of the bases of a class, the nearest first; of a built-in one none."""
    known: list[str] | None = vars(kind).get(BASES)
    if known is not None:
        return known
    if kind.__module__ == "builtins":
        return []
    return [type_name(base) for base in kind.__mro__[1:-1]]  # without `object`


def names_of_fields(kind: type) -> list[str]:
    """Names of attributes that are in slots, and in fields of C."""
    return [name for name, _ in _fields(kind)]


def message_of(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """The exception's text, shortened.

    :param redact: alters the whole text: of a secret, a part may be cut off
    """
    try:
        return cut(redact(str(error)))
    except Exception:  # noqa: BLE001 - the user's own __str__
        return "(its message cannot be shown)"


def cut(text: str) -> str:
    """Shorten a long text to its head and tail, the most useful parts of a stack."""
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Its ``args``."""
    found: tuple[Any, ...] = _OWN["args"].__get__(error)
    return found


def dict_of(error: BaseException) -> dict[str, Any]:
    """Its ``__dict__``."""
    found: dict[str, Any] = _OWN["__dict__"].__get__(error)
    return found


def links_of(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Its cause and its context."""
    return _OWN["__cause__"].__get__(error), _OWN["__context__"].__get__(error)


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The members of a group; of any other exception none."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    found: tuple[BaseException, ...] = _MEMBERS.__get__(error)
    return found


def attributes_of(error: BaseException, *, fields: bool = True) -> Iterator[tuple[str, Any]]:
    """Attributes besides its args: in its dict, in slots, in fields of C that are set.

    :param fields: ``False``: those in its dict alone
    """
    for name, value in dict_of(error).items():
        if name not in _ELSEWHERE:
            yield name, value
    for name, field in _fields(type(error)) if fields else ():
        try:
            value = field.__get__(error, type(error))
        except AttributeError:
            continue
        # A field of a built-in class that is not set has no other sign.
        unset = value is None and field.__objclass__.__module__ == "builtins"
        if not unset and name not in _ELSEWHERE:
            yield name, value


def _fields(kind: type) -> Iterator[tuple[str, Any]]:
    for base in kind.__mro__:
        if base is BaseException:
            return
        for name, field in vars(base).items():
            if isinstance(field, _FIELDS) and not name.startswith("__"):
                yield name, field


def set_link(error: BaseException, name: str, value: BaseException | None) -> None:
    """Set its ``__cause__`` or ``__context__``."""
    _OWN[name].__set__(error, value)


def set_args(error: BaseException, args: tuple[Any, ...]) -> None:
    """Set its ``args``."""
    _OWN["args"].__set__(error, args)


def set_attribute(error: BaseException, name: str, value: Any) -> None:
    """Set what :func:`attributes_of` read, where it was."""
    for known, field in _fields(type(error)):
        if known == name:
            field.__set__(error, value)
            return
    dict_of(error)[name] = value
