"""The folder of runs: the files of a run, the list of runs, and their summaries."""

from __future__ import annotations

import heapq
import os
import re
from typing import TYPE_CHECKING, BinaryIO, Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from tapps_otel import clock
from tapps_otel.errors import LogDamagedError, LogError, RunNotFoundError
from tapps_otel.log import files as _files
from tapps_otel.log import lease as _lease
from tapps_otel.log.census import count_steps, has_agent, skim
from tapps_otel.log.event import Event, decode
from tapps_otel.log.reader import Checker, lines, may_be_log
from tapps_otel.log.tail import event_type_of, older_lines, read_tail
from tapps_otel.names import PRUNED, check_workflow_id, is_workflow_id, log_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["RunSummary", "Store", "run_of_side_log"]

_SUFFIX: Final = ".jsonl"
_SIDE: Final = re.compile(r"(?P<run>[^+]+)\+[0-9a-f]{8}\.jsonl")
_BEGINNINGS: Final = frozenset({"workflow_start", "workflow_resume"})
_COUNTED: Final = 4 << 20  # bytes: the steps of a larger log are not counted for a list
_ERROR: Final = 500  # characters of an error in a summary
_HEAD: Final = 64 * 1024  # bytes to search for a run's start, after a torn first line


def run_of_side_log(name: str) -> str | None:
    """Return the run that a side log of this name belongs to; ``None`` for another file."""
    match = _SIDE.fullmatch(name)
    return match["run"] if match and is_workflow_id(match["run"]) else None


class RunSummary(Struct, frozen=True):
    """Summary of a run, from the first line and the end of its log.

    Fields that an empty, torn or damaged log does not tell are ``None``.

    :ivar workflow: name of the workflow
    :ivar status: status of the last ``workflow_end``; without one, ``running`` while the lease is
        held, else ``interrupted``; ``answered`` if it was paused, and at least one of its questions
        was answered since; ``damaged`` if the log cannot be read to its end
    :ivar started_ns: start of the run by the wall clock, ns since 1970 UTC
    :ivar last_ns: time of the last event by the wall clock, ns since 1970 UTC
    :ivar last_step: step_id of the last step event
    :ivar last_step_event: type of the last step event
    :ivar seq: seq of the last event, 0 if there is none
    :ivar size: size of the log in bytes
    :ivar execution: number of the last execution, 0 if there is none
    :ivar problem: what is wrong with a damaged log
    :ivar parent: the run whose step called it first: its resume resumes this one
    :ivar forked_from: the runs that it was forked from: that run, the one that was forked from, ...
    :ivar error: type and beginning of the message of the error that the run ended with
    :ivar steps: number of its steps that have begun; ``None`` if they were not counted
    :ivar steps_done: how many of them are completed or skipped
    :ivar question: what it asks, if it is paused
    :ivar until_ns: when a paused run can continue without an answer, ns since 1970 UTC
    """

    workflow_id: str
    workflow: str | None
    status: str
    started_ns: int | None
    last_ns: int | None
    last_step: str | None
    last_step_event: str | None
    seq: int
    size: int
    execution: int
    problem: str | None = None
    parent: str | None = None
    forked_from: tuple[str, ...] = ()
    error: str | None = None
    steps: int | None = None
    steps_done: int | None = None
    question: str | None = None
    until_ns: int | None = None

    @property
    def duration_ns(self) -> int | None:
        """Time from its start to its last event."""
        if self.started_ns is None or self.last_ns is None:
            return None
        return max(0, self.last_ns - self.started_ns)

    def mentions(self, text: str) -> bool:
        """Return whether the summary has this text, in upper or lower case."""
        wanted = text.casefold()
        texts = (self.workflow_id, self.workflow, self.last_step, self.error, self.problem)
        more = (*texts, self.question, *self.forked_from)
        return any(wanted in one.casefold() for one in more if one)


class Store:
    """A folder of logs. A missing folder is empty; files of other programs are ignored.

    Methods that take a workflow_id raise :class:`InvalidIdError` for one that cannot name a file
    in this folder, before they touch the file system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log_path(self, workflow_id: str) -> Path:
        """Return the path of the run's log, whether it exists or not."""
        return self.folder / f"{check_workflow_id(workflow_id)}{_SUFFIX}"

    def lease_path(self, workflow_id: str) -> Path:
        """Return the path of the run's lease, whether it exists or not."""
        return self.folder / f"{check_workflow_id(workflow_id)}.lease"

    def blobs_folder(self, workflow_id: str) -> Path:
        """Return the folder of the run's large values, whether it exists or not."""
        return self.folder / f"{check_workflow_id(workflow_id)}.blobs"

    def ledger_path(self, workflow_id: str) -> Path:
        """Return the path of the ledger of spans that collectors have confirmed."""
        return self.folder / f"{check_workflow_id(workflow_id)}.ledger"

    def numbers_path(self, workflow_id: str) -> Path:
        """Return the path of the number of the last run whose id begins with this one."""
        return self.folder / f"{check_workflow_id(workflow_id)}.runs"

    def new_side_path(self, workflow_id: str) -> Path:
        """Return a new path for a side log, of a process that does not hold the run's lease."""
        return self.folder / f"{check_workflow_id(workflow_id)}+{os.urandom(4).hex()}{_SUFFIX}"

    def name_of(self, workflow_id: str) -> str:
        """Return the name of a run's log, given that name or an executor's id.

        :raises InvalidIdError: it cannot name a log, and no executor's run has that id
        :raises OSError: the log cannot be looked for
        """
        if not is_workflow_id(workflow_id):
            name = log_name(workflow_id)
            if self.has_log(name):
                return name
        return check_workflow_id(workflow_id)

    def pruned_path(self) -> Path:
        """Return the path of the log of removed runs, whether it exists or not."""
        return self.log_path(PRUNED)

    def side_paths(self) -> dict[str, list[Path]]:
        """Return the side logs of all runs, by run; the folder is listed once."""
        found: dict[str, list[Path]] = {}
        for _, name in _files.system().modification_times(self.folder, _SUFFIX):
            if (workflow_id := run_of_side_log(name)) is not None:
                found.setdefault(workflow_id, []).append(self.folder / name)
        for paths in found.values():
            paths.sort()
        return found

    def side_paths_of(self, workflow_id: str) -> list[Path]:
        """Return the side logs of a run; nothing is read but names."""
        names = _files.system().names(self.folder, f"{workflow_id}+")
        return [self.folder / name for name in sorted(names) if run_of_side_log(name)]

    def exists(self, workflow_id: str) -> bool:
        """Return whether a file has the name of the run's log; it is not opened."""
        return _files.system().is_file(self.log_path(workflow_id))

    def beginning_with(self, prefix: str) -> Iterator[str]:
        """Yield the ids that begin like this, the most recently written first.

        :raises OSError: the folder cannot be listed
        """
        for name in self._newest(0, None):
            if name.startswith(prefix) and self._summary_if_there(name) is not None:
                yield name

    def has_log(self, workflow_id: str) -> bool:
        """Return whether a run has a log, damaged or not. An empty file is none.

        :raises OSError: it cannot be opened, or is not a regular file
        """
        files = _files.system()
        try:
            with files.open_read(self.log_path(workflow_id)) as file:
                return files.size(file.fileno()) > 0
        except FileNotFoundError:
            return False

    def summary(self, workflow_id: str) -> RunSummary:
        """Return the summary of a run, in less than a millisecond for any size of the log.

        The status is ``damaged`` if the log is damaged or cannot be read.

        :raises RunNotFoundError: there is no log of that name
        """
        try:
            found = self._summary(check_workflow_id(workflow_id))
        except FileNotFoundError:
            found = None
        if found is None:
            raise RunNotFoundError(workflow_id, self.folder)
        return found

    def runs(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        agent: str | None = None,
        text: str | None = None,
        since_ns: int | None = None,
        last: int | None = None,
    ) -> Iterator[RunSummary]:
        """Yield the runs, the most recently written first, and open only their logs.

        :param status: only runs with this status
        :param workflow: only runs of the workflow with this name
        :param agent: only runs with a step of this agent; their logs are read whole
        :param text: only runs with this text in id, workflow, last step or error; in any case
        :param since_ns: only runs written at or after this time, ns since 1970 UTC
        :param last: maximum number of runs
        :raises OSError: the folder cannot be listed
        """
        left = last
        for name in self._newest(since_ns or 0, last):
            if left is not None and left <= 0:
                return
            run = self._summary_if_there(name)
            if run is None or (status or run.status) != run.status:
                continue
            if workflow is not None and run.workflow != workflow:
                continue
            if text is not None and not run.mentions(text):
                continue
            if agent is not None and not self._has_agent(name, agent):
                continue
            if left is not None:
                left -= 1
            yield run

    def last(self, workflow: str | None = None) -> RunSummary | None:
        """Return the most recently written run, of this workflow if one is given."""
        return next(self.runs(workflow=workflow, last=1), None)

    def counted(self, run: RunSummary) -> RunSummary:
        """Return the summary with the number of the run's steps, unless its log is large."""
        if run.steps is not None or run.size > _COUNTED or run.problem is not None:
            return run
        try:
            with _files.system().open_read(self.log_path(run.workflow_id)) as file:
                steps = count_steps(skim(file))
        except OSError:  # it was removed since
            return run
        return run if steps is None else replace(run, steps=steps.begun, steps_done=steps.done)

    # -- names

    def _newest(self, since_ns: int, last: int | None) -> Iterator[str]:
        """Yield ids by the modification time of their logs, the newest first.

        For a small ``last`` only that many names are kept in memory. If they do not suffice
        (because of filters, or files of other programs), the folder is listed again completely.
        """
        given: set[str] = set()
        for count in (None,) if last is None else (2 * last + 64, None):
            changes = _files.system().modification_times(self.folder, _SUFFIX)
            # A name with a plus is that of a side log.
            found = (one for one in changes if one[0] >= since_ns and "+" not in one[1])
            newest = sorted(found, reverse=True) if count is None else heapq.nlargest(count, found)
            for _, name in newest:
                workflow_id = name[: -len(_SUFFIX)]
                if workflow_id not in given and _may_be_run(workflow_id):
                    given.add(workflow_id)
                    yield workflow_id
            if count is None or len(newest) < count:
                return

    # -- one run

    def _has_agent(self, workflow_id: str, agent: str) -> bool:
        try:
            with _files.system().open_read(self.log_path(workflow_id)) as file:
                return has_agent(file, agent)
        except OSError:
            return False

    def _summary_if_there(self, workflow_id: str) -> RunSummary | None:
        try:
            return self._summary(workflow_id)
        except FileNotFoundError:  # it was removed since it was listed
            return None

    def _summary(self, workflow_id: str) -> RunSummary | None:
        """Return the summary, or ``None`` if the file is not a log.

        :raises FileNotFoundError: no such file
        """
        path, files = self.log_path(workflow_id), _files.system()
        try:
            with files.open_read(path) as file:
                if not may_be_log(files.read_at(file.fileno(), 64, 0)):
                    return None
                return self.summary_of(file, workflow_id)
        except FileNotFoundError:
            raise
        except OSError as error:
            return _damaged(workflow_id, 0, f"{path}: cannot be read: {error.strerror or error}")

    def summary_of(self, file: BinaryIO, workflow_id: str) -> RunSummary:
        """Return the summary of a run whose log is open.

        The status is ``damaged`` if the log is damaged or cannot be read.
        """
        path, size = self.log_path(workflow_id), 0
        try:
            size = _files.system().size(file.fileno())
            return self._read(file, path, workflow_id, size)
        except LogError as error:
            return _damaged(workflow_id, size, str(error))
        except OSError as error:
            return _damaged(workflow_id, size, f"{path}: cannot be read: {error.strerror or error}")

    def _read(self, file: BinaryIO, path: Path, workflow_id: str, size: int) -> RunSummary:
        tail = read_tail(file.fileno(), path, workflow_id)
        region = tail.checker.region
        if region is not None and not region.torn:
            raise LogDamagedError(path, region.offset, tail.checker.seq + 1, region.problem)
        start = _first(tail.events) if tail.offset == 0 else _start(file, path, workflow_id)
        step, ending, is_answered = _look_back(tail.events, older_lines(file.fileno(), tail.offset))
        last = tail.events[-1] if tail.events else None
        steps = count_steps(tail.events) if tail.offset == 0 else None  # they are in memory
        return RunSummary(
            workflow_id=workflow_id,
            workflow=_text(_of_workflow(start, "name")),
            status="answered" if is_answered else self._status(ending, workflow_id),
            started_ns=_time_ns(start),
            last_ns=_time_ns(last),
            last_step=_text(step.step_id) if step else None,
            last_step_event=step.event_type if step else None,
            seq=tail.checker.seq,
            size=size,
            execution=last.execution if last else 0,
            parent=_parent(start),
            forked_from=_forked_from(start),
            error=_error(ending),
            steps=None if steps is None else steps.begun,
            steps_done=None if steps is None else steps.done,
            question=None if ending is None else _text(ending.question),
            until_ns=_until_ns(ending),
        )

    def _status(self, ending: Event | None, workflow_id: str) -> str:
        if ending is not None and ending.status is not UNSET:
            return ending.status
        held = _lease.holder(self.lease_path(workflow_id)) is not None
        return "running" if held else "interrupted"


def _may_be_run(name: str) -> bool:
    return name != PRUNED and is_workflow_id(name)


def _damaged(workflow_id: str, size: int, problem: str) -> RunSummary:
    return RunSummary(
        workflow_id, None, "damaged", None, None, None, None, 0, size, 0, problem=problem
    )


def _start(file: BinaryIO, path: Path, workflow_id: str) -> Event | None:
    """Return the run's first event: the first line that is not torn."""
    checker = Checker(path, workflow_id)
    taken = 0
    for line in lines(file):
        event = checker.feed(line)
        if event is not None and event.event_type == "workflow_start":
            return event
        taken += len(line)
        if taken > _HEAD:
            break
    region = checker.region
    if region is not None and not region.torn:
        raise LogDamagedError(path, region.offset, checker.seq + 1, region.problem)
    return None


def _first(events: list[Event]) -> Event | None:
    return next((event for event in events if event.event_type == "workflow_start"), None)


def _look_back(
    events: list[Event], older: Iterable[bytes]
) -> tuple[Event | None, Event | None, bool]:
    """Return the last step event, the end in force, and whether a pause was answered after it.

    Read no further back.
    """
    step = ending = None
    decided = is_answered = False
    for event in _backwards(events, older):
        if step is None and event.event_type.startswith("step_"):
            step = event
        if not decided:
            decided = _decides(event)
            is_answered = is_answered or event.answered is not UNSET
            ending = event if event.event_type == "workflow_end" else None
        if decided and step is not None:
            break
    is_paused = ending is not None and ending.status == "paused"
    return step, ending, is_paused and is_answered


def _backwards(events: list[Event], older: Iterable[bytes]) -> Iterator[Event]:
    yield from reversed(events)
    for line in older:
        if event_type_of(line).startswith(("step_", "workflow_")):
            try:
                yield decode(line)
            except ValueError:  # declared damage
                continue


def _decides(event: Event) -> bool:
    """Return whether this event tells that the run has ended, or that it has not.

    No step finishes after its run has ended, so that a long run need not be searched back to its
    start. (Steps left behind by a run may still fail. A late line may describe any time, and what a
    third-party executor left running is late once the run has ended.)
    """
    kind = event.event_type
    return (
        kind == "workflow_end"
        or kind in _BEGINNINGS
        or (kind == "step_finish" and event.late is not True)
    )


def _of_workflow(start: Event | None, field: str) -> object:
    return None if start is None or start.workflow is UNSET else start.workflow.get(field)


def _error(ending: Event | None) -> str | None:
    if ending is None or ending.error is UNSET:
        return None
    kind, message = (str(ending.error.get(key) or "")[:_ERROR] for key in ("type", "message"))
    return (f"{kind}: {message}" if kind and message else kind or message)[:_ERROR] or None


def _parent(start: Event | None) -> str | None:
    parent = _of_workflow(start, "parent")
    return _text(parent.get("workflow_id")) if isinstance(parent, dict) else None


def _forked_from(start: Event | None) -> tuple[str, ...]:
    match _of_workflow(start, "forked_from"):
        case str(workflow_id):
            return (workflow_id,)
        case {"workflow_id": str(workflow_id), **rest}:
            earlier = rest.get("ancestors")
            return (workflow_id, *map(str, earlier if isinstance(earlier, list) else ()))
    return ()


def _time_ns(event: Event | None) -> int | None:
    if event is None:
        return None
    try:
        return clock.parse_timestamp(event.timestamp)
    except ValueError:
        return None


def _until_ns(ending: Event | None) -> int | None:
    if ending is None or ending.status != "paused" or ending.until is UNSET:
        return None
    return clock.timestamp_ns(ending.until)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
