"""Codecs of unions: the form says which member it is of, where that cannot be seen from it."""

from __future__ import annotations

from typing import Any

from tapps_otel.run.codecs.codec import CLASS, VALUE, Codec, Fit, is_tagged, json_kind
from tapps_otel.run.codecs.native import NotStorableError, class_name

__all__ = ["UnionCodec"]


class UnionCodec(Codec):
    """A value of one of several annotations.

    Where no other member writes JSON of the same kind the form is the member's own; else it has
    the member's name beside it.

    :param default: what has no name beside it is of the first member
    """

    def __init__(self, members: list[Codec], *, default: bool = False) -> None:
        self._members = members
        self.kinds = frozenset().union(*(member.kinds for member in members))
        self.label = "|".join(member.label for member in members)
        self.native = False
        self._alone = {
            member: not any(member.kinds & other.kinds for other in members if other is not member)
            for member in members
        }
        if default:
            self._alone[members[0]] = True

    def encode(self, value: Any) -> Any:
        fits = {member: member.fit(value) for member in self._members}
        problem = NotStorableError(f"{class_name(type(value))} does not match its annotation")
        for member in sorted(fits, key=fits.__getitem__, reverse=True):  # the best ones first
            if fits[member] is Fit.NONE:
                break
            try:
                data = member.encode(value)
            except NotStorableError as error:  # lists of one kind and of another fit alike
                problem = error
            else:
                return data if self._alone[member] else {CLASS: member.label, VALUE: data}
        raise problem

    def decode(self, data: Any) -> Any:
        if is_tagged(data):
            named = [
                member
                for member in self._members
                if member.label == data[CLASS] and not self._alone[member]
            ]
            if named:
                return _first(named, data[VALUE])
        kind = json_kind(data)
        fitting = [member for member in self._members if kind in member.kinds]
        # Where several fit, an older version wrote it.
        return _first(sorted(fitting, key=lambda one: not self._alone[one]), data)

    def fit(self, value: Any) -> Fit:
        return max(member.fit(value) for member in self._members)

    def unfit(self) -> str | None:
        return next(filter(None, (member.unfit() for member in self._members)), None)


def _first(members: list[Codec], data: Any) -> Any:
    """The value that the first member reads that can."""
    problems = []
    for member in members:
        try:
            return member.decode(data)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    msg = "; ".join(problems) or f"{data!r:.80} fits no member of the union"
    raise ValueError(msg)
