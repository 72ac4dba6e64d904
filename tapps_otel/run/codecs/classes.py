"""Codecs of classes of users: of those that are their fields, and of abstract ones over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final

from tapps_otel.run.codecs.codec import CLASS, VALUE, Codec, Fit, is_tagged
from tapps_otel.run.codecs.fields import ABSENT, Fields
from tapps_otel.run.codecs.native import NotStorableError, check_native, class_name

__all__ = ["AbstractCodec", "ClassCodec", "find_subclass", "with_subclasses"]

_MORE: Final = "$more"


class AbstractCodec(Codec):
    """A class whose objects are of subclasses: each is written with the name of its class.

    :param codec_of: the codec of a subclass
    """

    kinds = frozenset({"object"})

    def __init__(self, cls: type, codec_of: Callable[[Any], Codec]) -> None:
        self._class, self._codec_of = cls, codec_of
        self.label = class_name(cls)

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if not isinstance(value, self._class):
            raise NotStorableError(
                f"{class_name(kind)} does not match its annotation ({self.label})"
            )
        codec = self._codec_of(kind)
        if codec.unfit() is not None or (isinstance(codec, AbstractCodec) and kind is self._class):
            raise NotStorableError(codec.unfit() or f"{class_name(kind)} has no fields")
        return {CLASS: class_name(kind), VALUE: codec.encode(value)}

    def decode(self, data: Any) -> Any:
        if not is_tagged(data):
            msg = f"{data!r:.80} is not {self.label}"
            raise ValueError(msg)
        return self._codec_of(find_subclass(self._class, data[CLASS])).decode(data[VALUE])

    def fit(self, value: Any) -> Fit:
        if type(value) is self._class:
            return Fit.EXACT
        return Fit.SUBCLASS if isinstance(value, self._class) else Fit.NONE


class ClassCodec(AbstractCodec):
    """A class whose objects are its fields; an object of a subclass is written with its name."""

    def __init__(self, cls: type, fields: Fields, codec_of: Callable[[Any], Codec]) -> None:
        super().__init__(cls, codec_of)
        self._fields = fields
        self._checking = False

    @cached_property
    def _codecs(self) -> dict[str, Codec]:
        # Not before they are needed: a field may be of the class itself.
        return {name: self._codec_of(field.hint) for name, field in self._fields.declared.items()}

    def encode(self, value: Any) -> Any:
        if type(value) is not self._class:
            return super().encode(value)
        fields, more = self._fields.read(value)
        codecs, data = self._codecs, {}
        for name, part in fields.items():
            try:
                data[name] = codecs[name].encode(part)
            except NotStorableError as error:
                raise error.inside(f".{name}") from None
        if more:
            try:
                check_native(more)
            except NotStorableError as error:
                raise error from None
            data[_MORE] = more
        return data

    def decode(self, data: Any) -> Any:
        if is_tagged(data):
            return super().decode(data)
        if type(data) is not dict:
            msg = f"{data!r:.80} is not {self.label}"
            raise ValueError(msg)
        codecs = self._codecs
        more = dict(data.get(_MORE, {}))
        fields = {}
        for name, part in data.items():
            if name in codecs:
                fields[name] = codecs[name].decode(part)
            elif name != _MORE:
                msg = f"{self.label} has no field {name!r}"
                raise ValueError(msg)
        for name, field in self._fields.declared.items():
            if name not in fields:
                default = field.default()
                if default is not ABSENT:
                    fields[name] = default
        return self._fields.make(fields, more)

    def unfit(self) -> str | None:
        if self._checking:  # a class that has fields of itself
            return None
        self._checking = True
        try:
            return next(self._faults(), None)
        finally:
            self._checking = False

    def _faults(self) -> Iterator[str]:
        try:
            codecs = self._codecs
        except NameError as error:
            yield f"{self.label}: {error}: an annotation that cannot be resolved"
            return
        for name, field in self._fields.declared.items():
            if field.excluded:
                yield f"{self.label}.{name} is excluded from what is written (exclude=True)"
            elif fault := codecs[name].unfit():
                yield f"{self.label}.{name}: {fault}"


def find_subclass(base: type, name: str) -> type:
    """The loaded class of this name that is ``base`` or a subclass of it. Imports nothing.

    A class of a script is one of ``__main__`` in one process and of a module in another: where no
    class has the whole name, one that has it without its module is taken, if it is the only one.

    :raises ValueError: there is none
    """
    found = list(with_subclasses(base))
    for cls in reversed(found):  # of a name that was defined again, the newest
        if class_name(cls) == name:
            return cls
    own = [cls for cls in found if name.endswith(f".{cls.__qualname__}")]
    if len({id(cls) for cls in own}) == 1:
        return own[0]
    msg = f"no class {name} is loaded that is a {class_name(base)}"
    raise ValueError(msg)


def with_subclasses(base: type) -> Iterator[type]:
    """A class and all that inherit from it; of siblings, those that were made first."""
    seen: set[type] = set()
    waiting = [base]
    while waiting:
        cls = waiting.pop(0)
        if cls not in seen:
            seen.add(cls)
            yield cls
            waiting += type.__subclasses__(cls)
