"""Spans that somebody else keeps, as a witness against a run's log.

They are read first and the log after them, for a line is written before its span is sent: what is
there and not in the log was never in it, or is not any more. What is held of a span is a digest;
those that differ, or are there alone, are read a second time, to say how.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tapps_otel.audit.comparison import Comparison, Head, SpanNote
from tapps_otel.audit.normalized_span import Meaning, differences, meaning_of
from tapps_otel.errors import LogDamagedError
from tapps_otel.names import ATTR
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.seam import SCOPE
from tapps_otel.otel.transport.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tapps_otel.audit.span_stores import Place
    from tapps_otel.log.store import Store
    from tapps_otel.otel.replay.run_spans import Found

__all__ = ["Witness"]

_TOLD: Final = 20  # differing spans whose content is held, to say how they differ
_DIFFERENCES: Final = 100  # of each
_REMARKS: Final = 100


class Witness:
    """What a place holds of a run's spans: a digest of each, and the heads that they tell of.

    :param trace_id: of the run, if its log has one
    :ivar heads: of the log, as the run's spans tell of them
    :raises SpansError: the place cannot be read
    """

    def __init__(self, place: Place, workflow_id: str, trace_id: str | None) -> None:
        self.place, self.heads = place, dict[Head, None]()  # a set that keeps their order
        self._id, self._trace_id = workflow_id, trace_id
        self._digests: dict[str, bytes] = {}
        self._others: dict[str, set[bytes]] = {}  # of spans that are there with several contents
        self._own: set[str] = set()
        for span in self._spans():
            self._take(span)

    def _spans(self) -> Iterator[Meaning]:
        """Those in the run's trace, and those that are the run's by what they say."""
        for span in self.place.spans(
            lambda trace_id, scope: trace_id == self._trace_id or scope == SCOPE
        ):
            # A marker is no span of the log's.
            if span.fields["attributes"].get(ATTR.MARKER) is not True:
                yield span

    def _take(self, span: Meaning) -> None:
        own = self._is_own(span)
        if not own and span.trace_id != self._trace_id:
            return
        key, digest = _key(span), self._digest(span)
        if self._digests.setdefault(key, digest) != digest:
            self._others.setdefault(key, set()).add(digest)
        if own:
            self._own.add(key)
            self._take_head(span)

    def _is_own(self, span: Meaning) -> bool:
        """Whether it says that it is the run's, or says of no run while it is in its trace.

        Other runs may be in the same trace, and libraries of which the log knows nothing.
        """
        if span.fields["scope"]["name"] != SCOPE:
            return False
        said = span.fields["attributes"].get(ATTR.WORKFLOW_ID)
        return said == self._id or (said is None and span.trace_id == self._trace_id)

    def _take_head(self, span: Meaning) -> None:
        attributes = span.fields["attributes"]
        seq, sha = attributes.get(ATTR.SEQ_LAST), attributes.get(ATTR.HEAD_SHA)
        if type(seq) is int and isinstance(sha, str):
            number = attributes.get(ATTR.EXECUTION)
            execution = number if type(number) is int else 0
            self.heads[Head(seq, sha[:65], execution, span.span_id[:16])] = None

    def _digest(self, span: Meaning) -> bytes:
        """16 bytes of all that it says; where the place may keep less, 16 more of that."""
        return span.digest() + (self.place.reduce(span).digest() if self.place.lacks else b"")

    # -- against the log

    def compare(self, store: Store, beside: Sequence[Path]) -> Comparison:
        """Compare each span that the log has, or a log beside it.

        :param beside: logs beside the run's
        :raises LogVersionError: a newer format
        """
        found = Comparison(self._id, self.place.name, self.place.lacks)
        found.heads = tuple(self.heads)
        held: dict[str, Meaning] = {}
        spans = RunSpans(store, self._id, beside=beside)
        try:
            for one in spans:
                self._compare(one, found, held)
        except LogDamagedError as error:  # the check of the chain says what it is
            found.remarks.append(f"compared as far as {error.path} can be read")
        found.running = spans.running
        found.remarks += spans.problems
        if held or self._own:
            self._look_again(found, held)
        found.remarks += self.place.notes
        return found

    def _compare(self, one: Found, found: Comparison, held: dict[str, Meaning]) -> None:
        log = self._as_sent(one, found)
        if log is None:
            return
        key, digest = _key(log), self._digest(log)
        note = _note(log, one)
        there = {self._digests.get(key), *self._others.get(key, ())}
        self._own.discard(key)
        found.spans += 1
        if there == {None}:
            if one.span.context.trace_flags.sampled:
                found.missing.add(note)
            else:
                found.unsampled += 1
        elif digest in there or self._is_near(digest, there):
            found.equal += 1
            found.reduced += digest not in there
            if len(there) > 1:
                found.doubled.add(note)
        else:
            found.different.add(note)
            if len(held) < _TOLD:
                held[key] = log

    def _as_sent(self, one: Found, found: Comparison) -> Meaning | None:
        """A rebuilt span as it is sent; of a log that somebody made up, there may be none."""
        (request,) = encoded([one.span])
        if request.problem:
            if len(found.remarks) < _REMARKS:
                found.remarks.append(
                    f"{one.log}, seq {one.seq}: not compared, for no span can be made of it: "
                    f"{request.problem}"
                )
            return None
        (of_resource,) = ExportTraceServiceRequest.FromString(request.data).resource_spans
        (of_scope,) = of_resource.scope_spans
        return meaning_of(of_resource, of_scope, of_scope.spans[0])

    def _is_near(self, digest: bytes, there: set[bytes | None]) -> bool:
        """Whether one of them says the same in all that the place is sure to keep."""
        return bool(self.place.lacks) and digest[16:] in {one[16:] for one in there if one}

    def _look_again(self, found: Comparison, held: dict[str, Meaning]) -> None:
        """Say how spans differ, and what those are that are there alone."""
        told: dict[str, tuple[str, ...]] = {}
        for there in self._spans():
            key = _key(there)
            if key in self._own:
                self._own.discard(key)
                found.extra.add(_note(there))
            elif key in held and key not in told:
                differ = differences(self.place.reduce(there), self.place.reduce(held[key]))
                told[key] = tuple(islice(differ, _DIFFERENCES))
        for at, (key, note) in enumerate(zip(held, found.different.spans, strict=False)):
            found.different.spans[at] = note._replace(differences=told.get(key, ()))


def _note(span: Meaning, found: Found | None = None) -> SpanNote:
    """What to call a span; what somebody else wrote may be of any length."""
    name, ids = span.fields["name"][:200], (span.trace_id[:32], span.span_id[:16])
    return SpanNote(name, *ids) if found is None else SpanNote(name, *ids, found.log, found.seq)


def _key(span: Meaning) -> str:
    return f"{span.trace_id}-{span.span_id}"
