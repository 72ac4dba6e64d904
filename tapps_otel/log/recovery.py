"""Reads and checks an open log that is to be continued, and seals its torn end.

A log is never truncated or rewritten: earlier content is always a prefix of later content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import UNSET, Struct

from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, RunBusyError
from tapps_otel.log.event import EVENT_TYPES, SYNCED, Event, encode, trailing_sha
from tapps_otel.log.reader import Checker, Region, lines, may_be_log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from tapps_otel.log.files import Files

__all__ = ["Recovery", "State", "log_event"]


class State(Struct, frozen=True):
    """What a log holds, once its end is sealed.

    :ivar seq: of its last event, 0 if there is none
    :ivar sha: of its last event (64 ASCII characters), empty if there is none
    :ivar end: size of the file in bytes
    :ivar workflow_id: in its events: the id of a third-party executor may not be a file name
    :ivar seen: which of the shas that were looked for it has
    """

    seq: int
    sha: bytes
    end: int
    workflow_id: str
    seen: set[bytes]


def log_event(event_type: str, workflow_id: str, execution: int, **fields: Any) -> Event:
    """Make an event that a log has of itself."""
    return Event(
        event_type=event_type,
        workflow_id=workflow_id,
        timestamp=clock.timestamp(clock.time_ns()),
        execution=execution,
        **fields,
    )


class Recovery:
    """Makes the log of one run ready to be continued.

    :param path: names the log in messages
    :param workflow_id: the name of the log
    :param boot_id: id of the current boot, which tells the holes of a power cut from other damage
    """

    def __init__(self, files: Files, path: Path, workflow_id: str, boot_id: str | None) -> None:
        self._files, self._path, self._id, self._boot_id = files, path, workflow_id, boot_id

    def run(
        self,
        descriptor: int,
        *,
        on_event: Callable[[Event], None] = lambda _: None,
        wanted: Collection[bytes] = (),
        acknowledged: int = 0,
        stored: int = 0,
        accept_damage: bool = False,
        execution: int | None = None,
    ) -> State:
        """Lock, sync, evict and check an open log, and seal its end.

        :param on_event: called with every event of the log
        :param wanted: shas to look for: of lines that will be written again if they are missing
        :param acknowledged: seq of an event that the log must have
        :param stored: seq up to which the home has the log; damage before that is not declared,
            because what would follow it would be another log than the home's
        :param accept_damage: declare any damage after that event, not only a torn end
        :param execution: of the event that declares it; by default, the next one
        :raises RunBusyError: another process writes to this file
        :raises LogDamagedError: the log is damaged, and not by a crash; nothing was written
        :raises LogVersionError: the log has a newer format; nothing was written
        :raises OSError: the file cannot be read, synced or repaired
        """
        # It keeps processes apart that hold leases of two files: the first was removed.
        if not self._files.lock(descriptor):
            raise RunBusyError(self._id, None, None)
        if self._files.size(descriptor):
            # Events of a crashed writer may only be in the page cache, and events that a failed
            # sync lost are still shown there: sync, then read what the disk holds.
            self._files.sync(descriptor)
            self._files.evict(descriptor)
        checker, past = Checker(self._path, self._id), _Past(self._id)
        seen = self._read(descriptor, checker, past, on_event, wanted)
        if checker.seq < stored:
            self._refuse_loss(checker, stored)
        if checker.seq < acknowledged:
            problem = f"it ends before seq {acknowledged}, which had been acknowledged"
            raise LogDamagedError(self._path, checker.end, checker.seq + 1, problem)
        if checker.region is not None:
            region = checker.region
            if not (
                accept_damage
                or past.explains(region, checker.seq, self._boot_id)
                or self._is_looked_for(descriptor, region, wanted)
            ):
                raise LogDamagedError(self._path, region.offset, checker.seq + 1, region.problem)
            on_event(self._seal(descriptor, checker, region, past, execution))
        elif not checker.whole:  # only the newline is missing
            self._files.write(descriptor, b"\n")
            checker.end += 1
        return State(checker.seq, checker.sha, checker.end, past.workflow_id, seen)

    def _refuse_loss(self, checker: Checker, stored: int) -> NoReturn:
        """Refuse a log that lacks lines, although its end has all that the home has.

        :raises LogDamagedError: in any case
        """
        region = checker.region
        problem = f"it ends before seq {stored}" if region is None else region.problem
        raise LogDamagedError(self._path, checker.end, checker.seq + 1, problem, in_store=True)

    def _is_looked_for(self, descriptor: int, region: Region, wanted: Collection[bytes]) -> bool:
        """Whether all lines beside a hole that end whole are looked for, to be written again.

        A failed sync may lose a block in the middle of lines that were written while it ran.
        """
        if not (wanted and region.has_nul):
            return False
        data = self._files.read_at(descriptor, region.length, region.offset)
        shas = {trailing_sha(line) for line in data.split(b"\n")} - {None}
        return bool(shas) and shas <= set(wanted)

    def _read(
        self,
        descriptor: int,
        checker: Checker,
        past: _Past,
        on_event: Callable[[Event], None],
        wanted: Collection[bytes],
    ) -> set[bytes]:
        """Feed the checker; return those of the ``wanted`` shas that the log has."""
        if not may_be_log(self._files.read_at(descriptor, 64, 0)):
            raise LogDamagedError(self._path, 0, 1, "this is not a log of tapps_otel")
        seen, last = set(), None
        with self._files.reader(descriptor) as file:
            for line in lines(file):
                event = checker.feed(line)
                if event is None:
                    continue
                last = event
                if event.process is not UNSET:
                    past.process = event.process
                if wanted and checker.sha in wanted:
                    seen.add(checker.sha)
                on_event(event)
        if last is not None:
            past.execution, past.workflow_id = last.execution, last.workflow_id
        return seen

    def _seal(
        self,
        descriptor: int,
        checker: Checker,
        region: Region,
        past: _Past,
        execution: int | None,
    ) -> Event:
        """Append a ``log_repair`` that declares the region at the end, in a single write."""
        event = log_event(
            "log_repair",
            past.workflow_id,
            execution or past.execution + 1,
            damage=checker.declaration(region),
        )
        event.seq = checker.seq + 1
        line, sha = encode(event, checker.sha)
        newline = b"" if region.terminated else b"\n"
        self._files.write(descriptor, newline + line)
        self._files.sync(descriptor)
        checker.seq, checker.sha = event.seq, sha
        checker.end = region.offset + region.length + len(newline) + len(line)
        return event


class _Past:
    """What the events before a region tell about the process that wrote them."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id, self.execution = workflow_id, 0
        self.process: dict[str, Any] = {}

    def explains(self, region: Region, seq: int, boot_id: str | None) -> bool:
        """Whether a crash of that process, or a power cut, can have left this region.

        :param seq: of the last event before it
        """
        return region.torn or (region.has_nul and self._cut_by_power(boot_id, region.readable, seq))

    def _cut_by_power(self, boot_id: str | None, readable: Mapping[str, int], seq: int) -> bool:
        """Whether a power cut can have left a hole next to these whole lines.

        Only lines that were not synced can be missing, and the machine must have rebooted since.
        Events that wait for a sync tell how far the log was synced when they were written.
        """
        durability, then = self.process.get("durability"), self.process.get("boot_id")
        unsynced = EVENT_TYPES - SYNCED if durability == "commit" else frozenset[str]()
        return (
            durability != "os"
            and None not in {then, boot_id}
            and then != boot_id
            and all(synced <= seq for kind, synced in readable.items() if kind not in unsynced)
        )
