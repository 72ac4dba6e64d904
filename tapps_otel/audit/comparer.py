"""The comparison of a run's log with the spans in a store.

The store is read first and the log after it. A line is written before its span is sent, so a span
that is only in the store was never in the log, or was removed from it. Only a digest of each span
is kept in memory; those that differ or are only in the store are read again for the report.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tapps_otel.audit.comparison import Comparison, Head, SpanNote
from tapps_otel.audit.normalized_span import (
    Names,
    NormalizedSpan,
    differences,
    names_of,
    normalized,
    without_others,
)
from tapps_otel.errors import LogDamagedError
from tapps_otel.names import ATTR
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.seam import SCOPE
from tapps_otel.otel.transport.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tapps_otel.audit.span_stores import SpanStore
    from tapps_otel.log.store import Store
    from tapps_otel.otel.replay.run_spans import Found

__all__ = ["Comparer"]

_MOST_DESCRIBED: Final = 20  # differing spans, whose content is kept for the report
_MOST_DIFFERENCES: Final = 100  # of each
_MOST_REMARKS: Final = 100


class _Library(NamedTuple):
    """A library's span in the run's trace.

    :ivar process: digest of its resource
    """

    parent: str
    process: bytes


class _Differing(NamedTuple):
    """A span of the log that the store has with other content.

    :ivar digest: of it, as the log has it
    :ivar names: of its attributes there
    """

    note: SpanNote
    digest: bytes
    names: Names


class Comparer:
    """Compares a run's log with a store: reads a digest of each of the run's spans there.

    :param trace_id: of the run, if its log has one
    :ivar heads: of the log, as recorded on the run's spans
    :raises SpansError: the store cannot be read
    """

    def __init__(self, spans: SpanStore, workflow_id: str, trace_id: str | None) -> None:
        self.heads = dict[Head, None]()  # a set in order
        self._store = spans
        self._id, self._trace_id = workflow_id, trace_id
        self._digests: dict[str, bytes] = {}
        self._others: dict[str, set[bytes]] = {}  # of spans that are stored with several contents
        self._own: set[str] = set()
        # Of the run's trace, by span id: libraries' spans, and which spans are of other runs.
        self._libraries: dict[str, _Library] = {}
        self._other_runs: set[str] = set()
        self._captured = set[str]()  # libraries' spans that the log has
        self._differing: dict[str, _Differing] = {}
        self._names: dict[Names, Names] = {}  # each once: many spans have the same
        for span in self._spans():
            self._take(span)

    def _spans(self) -> Iterator[NormalizedSpan]:
        """Yield spans of the run's trace, and spans that may name the run."""
        for span in self._store.spans(
            lambda trace_id, scope: trace_id == self._trace_id or scope == SCOPE
        ):
            # Markers are not in the log.
            if span.fields["attributes"].get(ATTR.MARKER) is not True:
                yield span

    def _take(self, span: NormalizedSpan) -> None:
        own = self._is_own(span)
        if not own and span.trace_id != self._trace_id:
            return
        key, digest = _key(span), self._digest(span)
        if self._digests.setdefault(key, digest) != digest:
            self._others.setdefault(key, set()).add(digest)
        if own:
            self._own.add(key)
            self._take_head(span)
        elif span.fields["scope"]["name"] == SCOPE:
            self._other_runs.add(span.span_id)
        else:
            self._libraries[span.span_id] = _Library(span.fields["parent"], span.process())

    def _is_own(self, span: NormalizedSpan) -> bool:
        """Whether it names the run, or names no run and is in the run's trace.

        The trace may have spans of other runs too, and of libraries that the log did not capture.
        """
        if span.fields["scope"]["name"] != SCOPE:
            return False
        named = span.fields["attributes"].get(ATTR.WORKFLOW_ID)
        return named == self._id or (named is None and span.trace_id == self._trace_id)

    def _take_head(self, span: NormalizedSpan) -> None:
        attributes = span.fields["attributes"]
        seq, sha = attributes.get(ATTR.SEQ_LAST), attributes.get(ATTR.HEAD_SHA)
        if type(seq) is int and isinstance(sha, str):
            number = attributes.get(ATTR.EXECUTION)
            execution = number if type(number) is int else 0
            self.heads[Head(seq, sha[:65], execution, span.span_id[:16])] = None

    def _digest(self, span: NormalizedSpan) -> bytes:
        """Return 16 bytes for the span, and 16 more for what the store keeps at least."""
        return span.digest() + (self._store.reduce(span).digest() if self._store.lacks else b"")

    # -- against the log

    def compare(self, store: Store, beside: Sequence[Path]) -> Comparison:
        """Compare each span of the run's log and of its side logs.

        :param beside: side logs of the run
        :raises LogVersionError: a log has a newer format
        """
        found = Comparison(self._id, self._store.name, self._store.lacks)
        found.heads = tuple(self.heads)
        held: dict[str, NormalizedSpan] = {}
        spans = RunSpans(store, self._id, side_logs=beside)
        try:
            for one in spans:
                self._compare(one, found, held)
        except LogDamagedError as error:  # the check of the chain reports it
            found.remarks.append(f"compared as far as {error.path} can be read")
        found.running = spans.running
        found.remarks += spans.problems
        self._find_lost(found)
        if self._differing or self._own:
            self._look_again(found, held)
        found.remarks += self._store.notes
        return found

    def _compare(self, one: Found, found: Comparison, held: dict[str, NormalizedSpan]) -> None:
        log = self._as_sent(one, found)
        if log is None:
            return
        key, digest = _key(log), self._digest(log)
        note = _note(log, one)
        there = {self._digests.get(key), *self._others.get(key, ())}
        self._own.discard(key)
        if log.span_id in self._libraries:
            self._captured.add(log.span_id)
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
            names = names_of(log)
            self._differing[key] = _Differing(note, digest, self._names.setdefault(names, names))
            if len(held) < _MOST_DESCRIBED:
                held[key] = log

    def _find_lost(self, found: Comparison) -> None:
        """Find libraries' spans that the log must have had: those of processes that it captured."""
        watched = {self._libraries[span_id].process for span_id in self._captured}
        for span_id in self._libraries.keys() - self._captured:
            if not self._is_of_other_run(span_id):
                if self._libraries[span_id].process in watched:
                    self._own.add(f"{self._trace_id}-{span_id}")
                else:
                    found.uncaptured += 1

    def _is_of_other_run(self, span_id: str) -> bool:
        """Whether a library was called by a step of another run of the trace."""
        passed = set[str]()
        while span_id in self._libraries and span_id not in passed:
            passed.add(span_id)
            span_id = self._libraries[span_id].parent
        return span_id in self._other_runs

    def _as_sent(self, one: Found, found: Comparison) -> NormalizedSpan | None:
        """Encode a rebuilt span as it is sent; a made-up log may have none that can be encoded."""
        (request,) = encoded([one.span])
        if request.problem:
            if len(found.remarks) < _MOST_REMARKS:
                found.remarks.append(
                    f"{one.log}, seq {one.seq}: not compared, as no span can be made of it: "
                    f"{request.problem}"
                )
            return None
        (of_resource,) = ExportTraceServiceRequest.FromString(request.data).resource_spans
        (of_scope,) = of_resource.scope_spans
        return normalized(of_resource, of_scope, of_scope.spans[0])

    def _is_near(self, digest: bytes, there: set[bytes | None]) -> bool:
        """Whether one of them is equal in all that the store is sure to keep."""
        return bool(self._store.lacks) and digest[16:] in {one[16:] for one in there if one}

    def _look_again(self, found: Comparison, held: dict[str, NormalizedSpan]) -> None:
        """Read the store again, for how spans differ and which are only there."""
        described: dict[str, tuple[str, ...]] = {}
        for there in self._spans():
            key = _key(there)
            if key in self._own:
                self._own.discard(key)
                found.extra.add(_note(there))
            elif key in self._differing and self._has_only_more(there, found):
                found.added.add(self._differing.pop(key).note)
                found.equal += 1
            elif key in self._differing and key in held and key not in described:
                differ = differences(self._store.reduce(there), self._store.reduce(held[key]))
                described[key] = tuple(islice(differ, _MOST_DIFFERENCES))
        for key, one in self._differing.items():
            found.different.add(one.note._replace(differences=described.get(key, ())))

    def _has_only_more(self, there: NormalizedSpan, found: Comparison) -> bool:
        """Whether it has all that the log has, and attributes that others have added."""
        log = self._differing[_key(there)]
        without, names = without_others(there, log.names)
        digest = self._digest(without)
        if digest != log.digest and not self._is_near(log.digest, {digest}):
            return False
        if len(found.added_names) < _MOST_REMARKS:
            found.added_names |= names
        return True


def _note(span: NormalizedSpan, found: Found | None = None) -> SpanNote:
    """Note a span; texts from the store may be of any length, and are cut."""
    name, ids = span.fields["name"][:200], (span.trace_id[:32], span.span_id[:16])
    return SpanNote(name, *ids) if found is None else SpanNote(name, *ids, found.log, found.seq)


def _key(span: NormalizedSpan) -> str:
    return f"{span.trace_id}-{span.span_id}"
