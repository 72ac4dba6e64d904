"""The folder of runs: the files of a run, the list of runs, and their summaries."""

from __future__ import annotations

import heapq
import logging
import os
import re
from typing import TYPE_CHECKING, BinaryIO, Final

from msgspec.structs import replace

from tapps_otel.errors import LogDamagedError, LogError, RunNotFoundError, StoreError
from tapps_otel.log import files as _files
from tapps_otel.log import lease as _lease
from tapps_otel.log.census import count_steps, has_agent, skim
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import Checker, lines, may_be_log
from tapps_otel.log.summary import RunSummary, damaged, start_in, summarize
from tapps_otel.log.tail import older_lines, read_tail
from tapps_otel.names import PRUNED, check_workflow_id, is_workflow_id, log_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.log.home import Holder, Home

__all__ = ["RunSummary", "Store", "may_be_run", "run_of_side_log"]

_log = logging.getLogger("tapps_otel")
_SUFFIX: Final = ".jsonl"
_SIDE: Final = re.compile(r"(?P<run>[^+]+)\+[0-9a-f]{8}\.jsonl")
_COUNTED: Final = 4 << 20  # bytes: the steps of a larger log are not counted for a list
_HEAD: Final = 64 * 1024  # bytes to search for a run's start, after a torn first line


def run_of_side_log(name: str) -> str | None:
    """Return the run that a side log of this name belongs to; ``None`` for another file."""
    match = _SIDE.fullmatch(name)
    return match["run"] if match and is_workflow_id(match["run"]) else None


class Store:
    """A folder of logs. A missing folder is empty; files of other programs are ignored.

    Methods that take a workflow_id raise :class:`InvalidIdError` for one that cannot name a file
    in this folder, before they touch the file system.

    :param home: where the runs are, too
    """

    def __init__(self, folder: Path, home: Home | None = None) -> None:
        self.folder, self.home = folder, home

    @property
    def shown(self) -> str:
        """Where :meth:`runs` looks: the address of its home, else its folder."""
        return str(self.folder) if self.home is None else self.home.shown

    def log_path(self, workflow_id: str) -> Path:
        """Return the path of the run's log, whether it exists or not."""
        return self.folder / f"{check_workflow_id(workflow_id)}{_SUFFIX}"

    def lease_path(self, workflow_id: str) -> Path:
        """Return the path of the run's lease, whether it exists or not."""
        return self.folder / f"{check_workflow_id(workflow_id)}.lease"

    def lease(self, workflow_id: str) -> Lease:
        """Take the lease of a run, here and in its home.

        :raises RunBusyError: it is held already
        :raises StoreError: the home cannot be reached or used
        :raises OSError: its file cannot be opened or created
        """
        return Lease(self.lease_path(workflow_id), workflow_id, self.home)

    def holder(self, workflow_id: str) -> Holder | None:
        """Return the process that holds the lease of a run, ``None`` if none does.

        Where the home cannot be reached, only this machine is asked, and a warning is logged.
        """
        held = _lease.holder(self.lease_path(workflow_id))
        if held is None and self.home is not None:
            try:
                return self.home.holder(workflow_id)
            except StoreError as error:
                _log.warning(
                    "run %r: whether it is in progress is not known: %s", workflow_id, error
                )
        return held

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
        if self.home is not None:
            yield from filter(may_be_run, self.home.names(prefix))
            return
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
            raise self.not_found(workflow_id)
        return found

    def not_found(self, workflow_id: str) -> RunNotFoundError:
        """Return what to raise for a run that is neither here nor in the home."""
        home = None if self.home is None else self.home.shown
        return RunNotFoundError(workflow_id, self.folder, home)

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
        if left == 0:
            return
        for run in self._candidates(since_ns or 0, last):
            if (status or run.status) != run.status:
                continue
            if workflow is not None and run.workflow != workflow:
                continue
            if text is not None and not run.mentions(text):
                continue
            if agent is not None and not self._has_agent(run.workflow_id, agent):
                continue
            yield run
            if left is not None:
                left -= 1
                if not left:
                    return

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

    def _candidates(self, since_ns: int, last: int | None) -> Iterator[RunSummary]:
        """Yield all runs, the one written to last first; a home is asked for them."""
        if self.home is not None:
            found = self.home.summaries(since_ns)
            yield from (run for run in found if may_be_run(run.workflow_id))
            return
        for name in self._newest(since_ns, last):
            run = self._summary_if_there(name)
            if run is not None:
                yield run

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
                if workflow_id not in given and may_be_run(workflow_id):
                    given.add(workflow_id)
                    yield workflow_id
            if count is None or len(newest) < count:
                return

    # -- one run

    def _has_agent(self, workflow_id: str, agent: str) -> bool:
        if self.home is not None:
            return self.home.has_agent(workflow_id, agent)
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
            return damaged(workflow_id, 0, f"{path}: cannot be read: {error.strerror or error}")

    def summary_of(self, file: BinaryIO, workflow_id: str) -> RunSummary:
        """Return the summary of a run whose log is open.

        The status is ``damaged`` if the log is damaged or cannot be read.
        """
        path, size = self.log_path(workflow_id), 0
        try:
            size = _files.system().size(file.fileno())
            return self._read(file, path, workflow_id, size)
        except LogError as error:
            return damaged(workflow_id, size, str(error))
        except OSError as error:
            return damaged(workflow_id, size, f"{path}: cannot be read: {error.strerror or error}")

    def _read(self, file: BinaryIO, path: Path, workflow_id: str, size: int) -> RunSummary:
        found = self._read_to(file, path, workflow_id, size)
        # A run that has ended meanwhile has its end in the log before its lease is free.
        while found.status == "interrupted" and size != (
            size := _files.system().size(file.fileno())
        ):
            found = self._read_to(file, path, workflow_id, size)
        return found

    def _read_to(self, file: BinaryIO, path: Path, workflow_id: str, size: int) -> RunSummary:
        tail = read_tail(file.fileno(), path, workflow_id)
        region = tail.checker.region
        if region is not None and not region.torn:
            raise LogDamagedError(path, region.offset, tail.checker.seq + 1, region.problem)
        is_whole = tail.offset == 0
        return summarize(
            workflow_id,
            tail.events,
            older_lines(file.fileno(), tail.offset),
            start=start_in(tail.events) if is_whole else _start(file, path, workflow_id),
            seq=tail.checker.seq,
            size=size,
            is_whole=is_whole,
            is_held=lambda: self.holder(workflow_id) is not None,
        )


def may_be_run(name: str) -> bool:
    """Return whether a log of this name is a run's; what a home tells may be any text."""
    return name != PRUNED and is_workflow_id(name)


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
