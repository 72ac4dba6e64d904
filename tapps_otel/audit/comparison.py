"""The result of comparing a run's log with sent spans, and its messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.report.text import counted, few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Comparison", "Group", "Head", "SpanNote"]

_MOST_LISTED: Final = 1000  # spans of a group
_MOST_DIFFERENCES: Final = 5  # of one span, in a message
_MOST_NAMES: Final = 10  # of attributes, in a message


class SpanNote(NamedTuple):
    """A span, and how it differs.

    :ivar log: name of the log file; ``None`` for a span that no log has
    :ivar seq: of the line that ended it; 0 for one that was interrupted, or that no log has
    :ivar differences: a sentence each
    """

    name: str
    trace_id: str
    span_id: str
    log: str | None = None
    seq: int = 0
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f", seq {self.seq}" if self.seq else ""
        return f"{self.name} (span {self.span_id}{place})"


@dataclass(slots=True)
class Group:
    """Spans with the same result: their number, and the first thousand."""

    count: int = 0
    spans: list[SpanNote] = field(default_factory=list)

    def add(self, span: SpanNote) -> None:
        """Count a span, and keep it while there are few."""
        self.count += 1
        if len(self.spans) < _MOST_LISTED:
            self.spans.append(span)

    def __str__(self) -> str:
        return few(map(str, self.spans[:6]), total=self.count)


class Head(NamedTuple):
    """The log's head, as recorded on a workflow's span.

    :ivar seq: of the line that was the last then
    :ivar sha: of that line (64 hex)
    """

    seq: int
    sha: str
    execution: int
    span_id: str


@dataclass(slots=True)
class Comparison:
    """The spans of a log compared with those in a store.

    :ivar place: the store: a file, or an address without secrets
    :ivar lacks: what such a store may not keep of a span, in words
    :ivar spans: number of spans of the log
    :ivar equal: number of them that are in the store with the same content
    :ivar reduced: number of these that are equal except for what the store lacks
    :ivar added: those of the equal ones that have further attributes in the store
    :ivar added_names: of these attributes
    :ivar unsampled: number of spans that are not in the store because a sampler dropped them
    :ivar missing: spans that are not in the store for another reason
    :ivar different: spans that are in the store only with other content; how, for the first 20
    :ivar doubled: spans that are in the store with the same content and with other content
    :ivar extra: spans of the run that are in the store and not in the log
    :ivar uncaptured: number of libraries' spans in the run's trace that the log does not have, and
        may not have captured
    :ivar heads: of the log, as recorded in the store
    :ivar seq: of the log's last line that the chain confirms
    :ivar told: of the last such line that is not a captured span; those are compared themselves
    :ivar shas: of the log's lines that heads name, by their ``seq``
    :ivar running: the run is in progress: open spans were left out
    :ivar remarks: what was skipped
    """

    workflow_id: str
    place: str
    lacks: str = ""
    spans: int = 0
    equal: int = 0
    reduced: int = 0
    added: Group = field(default_factory=Group)
    added_names: set[str] = field(default_factory=set)
    unsampled: int = 0
    missing: Group = field(default_factory=Group)
    different: Group = field(default_factory=Group)
    doubled: Group = field(default_factory=Group)
    extra: Group = field(default_factory=Group)
    uncaptured: int = 0
    heads: tuple[Head, ...] = ()
    seq: int = 0
    told: int = 0
    shas: Mapping[int, str] = field(default_factory=dict)
    running: bool = False
    remarks: list[str] = field(default_factory=list)

    def confirms(self, head: Head) -> bool:
        """Whether the log has the head's line, with its sha."""
        return self.shas.get(head.seq) == head.sha

    @property
    def problems(self) -> Iterator[str]:
        """Yield what is wrong, the most serious first."""
        for head in self.heads:
            if not self.confirms(head):
                yield self._contradict(head)
        for span in self.different.spans:
            if span.differences:
                first = "; ".join(span.differences[:_MOST_DIFFERENCES])
                more = len(span.differences) - _MOST_DIFFERENCES
                yield f"{span} differs: {first}{f'; and {more} more' if more > 0 else ''}"
        if left := sum(not span.differences for span in self.different.spans):
            left += self.different.count - len(self.different.spans)
            yield f"{_are(left, 'more span')} there with other content"
        if self.extra.count:
            yield (
                f"{_are(self.extra.count)} there and not in the log: {self.extra}. The log lost "
                "the lines that ended them, or another program made them"
            )
        if self.missing.count and not self.running:
            yield (
                f"{_are(self.missing.count)} not there, of {self.spans}: {self.missing}. "
                f"`tapps-otel send {self.workflow_id}` sends what was not sent"
            )
        if self.doubled.count:
            yield f"{_are(self.doubled.count)} there with other content too: {self.doubled}"

    def _contradict(self, head: Head) -> str:
        recorded = (
            f"a span of execution {head.execution} there records seq {head.seq} with the sha "
        )
        recorded += f"{head.sha:.64}"
        advice = "Restore the log from a copy before the run is resumed"
        if head.seq in self.shas:
            return f"the log was rewritten: {recorded}; it is {self.shas[head.seq]} now. {advice}"
        return (
            f"the log's end was cut off: {recorded}; the log ends at seq {self.seq}. {advice}: "
            "what was cut off would run again"
        )

    @property
    def notes(self) -> Iterator[str]:
        """Yield what is worth knowing and is not a problem."""
        yield f"compared with {self.place}: {self.equal} of {_are(self.spans)} there, and equal"
        if all(map(self.confirms, self.heads)):
            seq = max((head.seq for head in self.heads), default=0)
            if seq < self.told:
                yield f"no span there confirms the log's lines after seq {seq}"
        if self.missing.count and self.running:
            yield f"{_are(self.missing.count)} not there yet; the run is in progress"
        if self.uncaptured:
            yield (
                f"{_are(self.uncaptured, 'library span')} there and not in the log: they were not "
                "captured, or lines behind the run's end were cut off"
            )
        if self.unsampled:
            yield f"{_are(self.unsampled)} not there, as a sampler dropped them"
        if self.added.count:
            names = few(sorted(self.added_names)[:_MOST_NAMES], total=len(self.added_names))
            have = "has" if self.added.count == 1 else "have"
            yield (
                f"{counted(self.added.count, 'span')} there {have} attributes that were added on "
                f"the way, by a library, a processor or a collector: {names}"
            )
        if self.reduced:
            yield f"not compared in {self.reduced} of them, as it is not kept there: {self.lacks}"
        yield from self.remarks


def _are(number: int, noun: str = "span") -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"
