"""What a comparison of a run's log with spans kept elsewhere found, and how it is said. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.report.text import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Comparison", "Group", "Head", "SpanNote"]

_LISTED: Final = 1000  # spans of a kind, by name
_DIFFERENCES: Final = 5  # of one span, in words


class SpanNote(NamedTuple):
    """A span, and what is to be said of it.

    :ivar log: name of the log's file; ``None`` for a span that no log has
    :ivar seq: of the line that ended it; 0 for one that was cut short, or that no log has
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
    """Spans of which the same is to be said: how many, and the first thousand of them."""

    count: int = 0
    spans: list[SpanNote] = field(default_factory=list)

    def add(self, span: SpanNote) -> None:
        """Count it, and hold it while there are few."""
        self.count += 1
        if len(self.spans) < _LISTED:
            self.spans.append(span)

    def __str__(self) -> str:
        shown = few(map(str, self.spans[:6]))
        return shown if self.count <= 6 else f"{shown} and {self.count - 6} more"


class Head(NamedTuple):
    """The log's head, as a workflow's span tells of it.

    :ivar seq: of the line that was the log's last then
    :ivar sha: of that line (64 hex)
    """

    seq: int
    sha: str
    execution: int
    span_id: str


@dataclass(slots=True)
class Comparison:
    """What was found.

    :ivar place: what the run was compared with
    :ivar lacks: what this place may not keep of a span, in words
    :ivar spans: how many spans the log has
    :ivar equal: how many of them are there with the same content
    :ivar reduced: how many of these have it but for what the place lacks
    :ivar unsampled: how many are not there because a sampler left them out
    :ivar missing: those that are not there otherwise
    :ivar different: those that are there with other content only; how, of the first 20
    :ivar doubled: those that are there with the same content, and with another
    :ivar extra: spans of the run there that the log does not have
    :ivar heads: of the log, as told there
    :ivar seq: of the log's last line that its chain vouches for
    :ivar told: of the last one that is not a captured span, which is compared by itself
    :ivar shas: of the log's lines that heads tell of, by their ``seq``
    :ivar running: the run is being carried on: what is open was left out
    :ivar remarks: what was passed over
    """

    workflow_id: str
    place: str
    lacks: str = ""
    spans: int = 0
    equal: int = 0
    reduced: int = 0
    unsampled: int = 0
    missing: Group = field(default_factory=Group)
    different: Group = field(default_factory=Group)
    doubled: Group = field(default_factory=Group)
    extra: Group = field(default_factory=Group)
    heads: tuple[Head, ...] = ()
    seq: int = 0
    told: int = 0
    shas: Mapping[int, str] = field(default_factory=dict)
    running: bool = False
    remarks: list[str] = field(default_factory=list)

    def confirms(self, head: Head) -> bool:
        """Whether the log has this line, with this sha."""
        return self.shas.get(head.seq) == head.sha

    @property
    def problems(self) -> Iterator[str]:
        """What is not as it should be: what weighs most comes first."""
        for head in self.heads:
            if not self.confirms(head):
                yield self._accuse(head)
        for span in self.different.spans:
            if span.differences:
                told = "; ".join(span.differences[:_DIFFERENCES])
                more = len(span.differences) - _DIFFERENCES
                yield f"{span} differs: {told}{f'; and {more} more' if more > 0 else ''}"
        if left := sum(not span.differences for span in self.different.spans):
            left += self.different.count - len(self.different.spans)
            yield f"{left} more of its spans are there with other content"
        if self.extra.count:
            yield (
                f"{_spans(self.extra.count)} there and not in the log: {self.extra}. The log lost "
                "the lines that ended them, or somebody else made them"
            )
        if self.missing.count and not self.running:
            yield (
                f"{_spans(self.missing.count)} not there, of {self.spans}: {self.missing}. "
                f"`tapps-otel send {self.workflow_id}` sends what was not sent yet"
            )
        if self.doubled.count:
            yield f"{_spans(self.doubled.count)} there with other content too: {self.doubled}"

    def _accuse(self, head: Head) -> str:
        said = f"a span of execution {head.execution} there says that seq {head.seq} has the sha "
        said += f"{head.sha:.64}"
        what_to_do = "Put the log back from a copy before anybody goes on with the run"
        if head.seq in self.shas:
            return f"the log was rewritten: {said}; it has {self.shas[head.seq]} now. {what_to_do}"
        return (
            f"the log's end was cut off: {said}; the log ends at seq {self.seq}. {what_to_do}: "
            "what was cut off would run again"
        )

    @property
    def notes(self) -> Iterator[str]:
        """What is worth knowing and is no problem."""
        are = "span is" if self.spans == 1 else "spans are"
        yield f"compared with {self.place}: {self.equal} of {self.spans} {are} there, and equal"
        if all(map(self.confirms, self.heads)):
            seq = max((head.seq for head in self.heads), default=0)
            if seq < self.told:
                yield f"no span there vouches for the log's lines after seq {seq}"
        if self.missing.count and self.running:
            yield f"{_spans(self.missing.count)} not there yet; the run goes on"
        if self.unsampled:
            yield f"{_spans(self.unsampled)} not there, for a sampler left them out"
        if self.reduced:
            yield f"not compared in {self.reduced} of them, for it is not kept there: {self.lacks}"
        yield from self.remarks


def _spans(count: int) -> str:
    return "1 span is" if count == 1 else f"{count} spans are"
