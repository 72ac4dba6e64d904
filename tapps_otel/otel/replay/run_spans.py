"""All spans of a run: rebuilt from its log, and from its side logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import UNSET

from tapps_otel.log.blobs import Blobs
from tapps_otel.log.reader import Checker, read
from tapps_otel.log.tail import head_of
from tapps_otel.otel.mapping.outgoing import Outgoing
from tapps_otel.otel.replay.begun import Begun
from tapps_otel.otel.replay.rebuild import Rebuilder
from tapps_otel.past.fold import child_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.otel.replay.begun import BegunSpan
    from tapps_otel.past.fold import ChildRun

__all__ = ["Found", "RunSpans"]

_STARTS: Final = frozenset({"log_repair", "workflow_resume"})  # what begins an execution in a log


class Found(NamedTuple):
    """A span, and its place.

    :ivar log: name of the log's file
    :ivar seq: of the line in it that ended the span; 0 for an interrupted one
    :ivar sha: of the line at which it was found (64 hex)
    :ivar execution: number of the execution that it belongs to
    :ivar waited: it is that of a pause that was ended by another process than began it
    """

    span: ReadableSpan
    log: str
    seq: int
    sha: str
    execution: int
    waited: bool = False


class RunSpans:
    """A run's spans, streamed; :attr:`problems` has what is missing.

    Open spans are left out while a process executes the run.

    :param before: only what belongs to executions before this one
    :param side_logs: the run's side logs, if the caller knows them; else they are looked for
    :param skip: names of logs that are not to be read
    :param on_left_out: called with each span that the setting ``span_filter`` leaves out,
        unfiltered
    :param seen: called with each event, and the name of its log, before the spans that it ends
    :ivar problems: what is wrong, each with its place
    :ivar children: the runs that its steps called; their spans are in their own logs
    :ivar running: whether a process executes the run, or did so while it was read
    :ivar left_out: how many spans the setting ``span_filter`` left out
    :ivar ends: of the logs that were read to their end, and of which every span was given: their
        last whole line as ``(seq, sha)``, by name
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: at the place of the damage, after the spans before it
    :raises SpanFilterError: the setting ``span_filter`` failed on a span
    """

    def __init__(
        self,
        store: Store,
        workflow_id: str,
        *,
        before: int | None = None,
        side_logs: Sequence[Path] | None = None,
        skip: Container[str] = (),
        seen: Callable[[str, Event], None] | None = None,
        on_left_out: Callable[[Found], None] | None = None,
    ) -> None:
        self.problems: list[str] = []
        self.children: dict[ChildRun, None] = {}
        self.running = False
        self.left_out = 0
        self._on_left_out = on_left_out
        self.ends: dict[str, tuple[int, str]] = {}
        self._store, self._id = store, workflow_id
        self._blobs = Blobs(store.blobs_folder(workflow_id))
        self._before, self._side_logs, self._skip, self._seen = before, side_logs, skip, seen
        self._begun, self._newest = Begun(), 0

    def __iter__(self) -> Iterator[Found]:
        side_logs = self._side_logs
        if side_logs is None:
            side_logs = self._store.side_paths().get(self._id, [])
        try:
            yield from self._read(self._store.log_path(self._id), own=True)
        except FileNotFoundError:
            if not side_logs:
                raise self._store.not_found(self._id) from None
        for path in side_logs:
            yield from self._read(path, own=False)
        yield from self._cut_off(side_logs)

    def _read(self, path: Path, *, own: bool) -> Iterator[Found]:
        if path.name in self._skip:
            self.running = self.running or (own and self._is_held())
            return
        checker = Checker(path, self._id)
        rebuilder = Rebuilder(self._blobs.get, self._begun, path.name)
        outgoing = Outgoing()  # the log may have been written under other rules
        free = own and not self._is_held()

        def found(rebuilt: Iterable[tuple[ReadableSpan, int, int, bool]]) -> Iterator[Found]:
            for span, seq, execution, waited in rebuilt:
                one = Found(span, path.name, seq, checker.sha.decode(), execution, waited)
                made = self._filtered(one, outgoing)
                if made is not None:
                    yield made

        try:
            for event in read(path, self._id, checker=checker):
                if own and self._is_later(event):
                    self.running = True
                    return
                if self._seen is not None:
                    self._seen(path.name, event)
                if event.attributes is not UNSET and (child := child_of(event.attributes)):
                    self.children[child] = None
                yield from found(rebuilder.feed(event, checker.sha))
            # A process that took the lease since then has added lines that were not read.
            if own:
                self.running = not free or self._is_held() or _has_grown(path, self._id, checker)
            if not (own and self.running):
                yield from found(rebuilder.close())
                if not rebuilder.problems:
                    self.ends[path.name] = (checker.seq, checker.sha.decode())
        finally:
            self._newest = max(self._newest, rebuilder.execution if own else 0)
            self.problems += [f"{path.name}, {problem}" for problem in rebuilder.problems]

    def _cut_off(self, side_logs: Sequence[Path]) -> Iterator[Found]:
        """Yield the spans of libraries that their processes did not end, as interrupted."""
        if not self._candidates():
            return
        self._look_again(side_logs)
        outgoing = Outgoing()
        for one in self._candidates():
            sha = self.ends.get(one.log, (0, ""))[1]
            made = self._filtered(
                Found(one.interrupted(), one.log, 0, sha, one.life.number), outgoing
            )
            if made is not None:
                yield made

    def _candidates(self) -> list[BegunSpan]:
        return self._begun.cut_off(before=self._newest, all_dead=not self.running)

    def _look_again(self, side_logs: Sequence[Path]) -> None:
        """Look for ends in the logs that were not read, or before the one with the start."""
        own = self._store.log_path(self._id)
        for path in [own] * (own.name in self._skip) + [*side_logs]:
            for event in read(path, self._id):
                if event.event_type == "span" and event.span_id is not UNSET:
                    self._begun.end(event.span_id)
                if path is own:
                    self._newest = max(self._newest, event.execution)
                    if event.event_type == "workflow_end":
                        self._begun.end_execution(event.execution)

    def _is_later(self, event: Event) -> bool:
        """Whether nothing that was asked for can follow.

        After the start of an execution come the ends that those before it left to it.
        """
        before = self._before
        return before is not None and event.execution >= before and event.event_type not in _STARTS

    def _filtered(self, found: Found, outgoing: Outgoing) -> Found | None:
        made = outgoing(found.span)
        if made is not None:
            return found._replace(span=made)
        self.left_out += 1
        if self._on_left_out is not None:
            self._on_left_out(found)
        return None

    def _is_held(self) -> bool:
        return self._store.holder(self._id) is not None


def _has_grown(path: Path, workflow_id: str, checker: Checker) -> bool:
    """Whether a log has lines that its reader has not read."""
    return head_of(path, workflow_id) != (checker.seq, checker.sha.decode())
