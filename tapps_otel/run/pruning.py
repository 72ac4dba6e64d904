"""Removing old runs from a folder of logs, with everything that belongs to them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from tapps_otel import clock, settings
from tapps_otel.errors import LogError, LogVersionError, RunBusyError, RunNotFoundError
from tapps_otel.log import files as _files
from tapps_otel.log.lease import Lease
from tapps_otel.log.reader import check
from tapps_otel.log.run_files import list_files, remove_run, remove_side_log
from tapps_otel.log.staging import remove_abandoned
from tapps_otel.log.store import Store
from tapps_otel.log.tombstones import open_tombstones
from tapps_otel.names import NO_RUN
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.run.lookup import check_own, folder_of_parent, store_of
from tapps_otel.run.person import person

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tapps_otel.log.reader import CheckReport
    from tapps_otel.log.run_files import RunFiles
    from tapps_otel.log.store import RunSummary
    from tapps_otel.log.tombstones import Tombstones

__all__ = ["KeptRun", "PruneReport", "PrunedRun", "prune"]

PrunableStatus = Literal[
    "completed", "failed", "cancelled", "timeout", "interrupted", "paused", "answered", "damaged"
]
# Runs that have ended. What can or must still be looked at is removed only by its status.
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "timeout"})


@dataclass(frozen=True, slots=True)
class PrunedRun:
    """A run that was removed, or would be.

    :ivar status: of the run; ``None`` for side logs without a run
    :ivar size: bytes that its files took
    :ivar why: the condition that it met
    """

    workflow_id: str
    status: str | None
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run that met a condition, and was kept.

    :ivar why: what protects it
    """

    workflow_id: str
    status: str | None
    why: str


@dataclass(slots=True)
class PruneReport:
    """The result of removing old runs.

    :ivar pruned: what was removed; with ``dry_run``, what would be
    :ivar kept: what met a condition and was kept nevertheless
    :ivar left: bytes that the files of the remaining runs take
    """

    pruned: list[PrunedRun] = field(default_factory=list)
    kept: list[KeptRun] = field(default_factory=list)
    left: int = 0

    @property
    def size(self) -> int:
        """Bytes that the removed files took."""
        return sum(one.size for one in self.pruned)


def _ignore(_: PrunedRun) -> None:
    pass


def prune(
    *,
    older_than: timedelta | None = None,
    keep: int | None = None,
    max_size: int | None = None,
    status: PrunableStatus | None = None,
    unsent: bool = False,
    dry_run: bool = False,
    log_dir: Path | str | None = None,
    progress: Callable[[PrunedRun], None] = _ignore,
) -> PruneReport:
    """Remove old runs with their side logs, ledgers, leases and large values.

    A tombstone in ``pruned.jsonl`` keeps each one's id and the head of its log, and
    ``verify("pruned")`` checks that file. Never removed are runs that a process executes, and runs
    that a step of an unfinished run has called. Interrupted, paused and damaged runs are removed
    only by ``status``, and runs whose spans no collector has confirmed only with ``unsent``. What a
    killed :func:`~tapps_otel.unpack` left is removed, too.

    :param older_than: remove runs that were last written to before that; also old side logs of
        spans outside any run
    :param keep: keep this many of the runs written to last; alone, remove all others
    :param max_size: remove the oldest runs until the files of all runs take this many bytes
    :param status: remove only runs of this status
    :param unsent: remove also runs whose spans are still to be sent
    :param dry_run: remove nothing, and report what would be removed
    :param progress: called with each run that was removed
    :raises ValueError: none of ``older_than``, ``keep`` and ``max_size`` is given, or one is
        negative
    :raises RunBusyError: another process prunes this folder
    :raises LogDamagedError: ``pruned.jsonl`` was changed; nothing was removed
    :raises LogWriteError: a tombstone cannot be written; its run was not removed
    :raises OSError: a file cannot be removed
    """
    if older_than is None and keep is None and max_size is None:
        raise ValueError("prune needs older_than, keep or max_size")
    if (keep or 0) < 0 or (max_size or 0) < 0 or (older_than and older_than.total_seconds() < 0):
        raise ValueError("older_than, keep and max_size must not be negative")
    store = Store(store_of(log_dir).folder)  # only what is on this machine is removed
    before_ns = None if older_than is None else clock.time_ns() - _nanoseconds(older_than)
    pruning = _Pruning(
        store, _Rules(before_ns, keep, max_size, status), unsent=unsent, progress=progress
    )
    if dry_run:
        pruning.prune(None)
        return pruning.report
    remove_abandoned(store)
    if pruning.files:  # a folder without runs gets no file
        with open_tombstones(store) as tombstones:
            pruning.finish_others(tombstones)
            pruning.prune(tombstones)
    return pruning.report


def _nanoseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1) * 1000


@dataclass(frozen=True, slots=True)
class _Rules:
    """Which runs are removed, as far as that depends on neither processes nor collectors."""

    before_ns: int | None
    keep: int | None
    max_size: int | None
    status: str | None

    def choose(self, newest_first: list[RunSummary]) -> list[RunSummary]:
        """Return the runs that may meet a condition, the oldest first."""
        chosen = [one for one in newest_first[self.keep or 0 :] if self._has_status(one)]
        return chosen[::-1]

    def _has_status(self, run: RunSummary) -> bool:
        return self.status is None or run.status == self.status

    def condition(self, changed_ns: int, left: int) -> str | None:
        """Return the condition that a run meets; ``None``: it is kept.

        :param left: bytes that the files of all runs take at present
        """
        if self.before_ns is not None and changed_ns < self.before_ns:
            return f"last written to before {clock.timestamp(self.before_ns)[:19]}Z"
        if self.max_size is not None:
            return (
                f"{left} bytes in all, of at most {self.max_size}" if left > self.max_size else None
            )
        return f"not among the last {self.keep}" if self.before_ns is None else None


class _Pruning:
    """One call of :func:`prune`.

    :ivar files: what is on the disk, by run
    """

    def __init__(
        self, store: Store, rules: _Rules, *, unsent: bool, progress: Callable[[PrunedRun], None]
    ) -> None:
        self.files = list_files(store)
        self.report = PruneReport(left=sum(one.size for one in self.files.values()))
        self._store, self._rules, self._progress = store, rules, progress
        self._with_unsent, self._wanted = unsent, traces_wanted(settings.current())
        self._runs: dict[str, RunSummary] = {}

    def finish_others(self, tombstones: Tombstones) -> None:
        """Finish what an earlier call had begun: it was killed after it removed a log.

        A run that has a log was not removed yet, or was restored since: the conditions decide.
        """
        for name, side_logs in tombstones.last.items():
            found = self.files.get(name)
            if found is None or found.has_log:
                continue
            checked = [path for path in found.side_logs if path.name in side_logs]
            if found.side_logs and not checked:
                continue  # a process has written them since: nothing is left of what was pruned
            with suppress(RunBusyError, OSError), self._leased(name):  # in use again
                if not self._store.has_log(name):
                    remove_run(self._store, name, checked)
        self.files = list_files(self._store)
        self.report.left = sum(one.size for one in self.files.values())

    def prune(self, tombstones: Tombstones | None) -> None:
        """Remove what meets a condition.

        :param tombstones: ``None``: remove nothing
        """
        self._runs = {one.workflow_id: one for one in self._store.runs()}
        due = self._rules.choose(list(self._runs.values()))
        needed: list[tuple[RunSummary, str]] = []
        while due:  # once more for runs called by runs that were removed
            needed = [(run, why) for run in due if (why := self._settle(run, tombstones))]
            if len(needed) == len(due):
                break
            due = [run for run, _ in needed]
        for run, why in needed:
            self._keep(run, why)
        if self._rules.status is None:
            self._prune_traces(tombstones)

    def _settle(self, run: RunSummary, tombstones: Tombstones | None) -> str | None:
        """Remove a run, or keep it; return why another run needs it, which may go itself."""
        found = self.files.get(run.workflow_id)
        if found is None:  # it began since the files were listed
            return None
        why = self._rules.condition(found.changed_ns, self.report.left)
        if why is None:
            return None
        needed = self._why_needed(run)
        if needed is not None:
            return needed
        try:
            reason = self._protection(run, found) or self._remove(run, found, why, tombstones)
        except (OSError, LogVersionError) as error:
            reason = str(error)
        if reason is not None:
            self._keep(run, reason)
        return None

    def _keep(self, run: RunSummary, why: str) -> None:
        self.report.kept.append(KeptRun(run.workflow_id, run.status, why))

    def _why_needed(self, run: RunSummary) -> str | None:
        """Why a resume of another run would look for this one; ``None``: none would."""
        if run.parent is None:
            return None
        here = self._runs.get(run.parent)
        if here is not None:
            return None if here.status == "completed" else _unfinished(repr(run.parent))
        try:
            return self._why_needed_elsewhere(run, run.parent)
        except RunNotFoundError:
            return None
        except (LogError, OSError) as error:
            return f"which run called it cannot be read: {error}"

    def _why_needed_elsewhere(self, run: RunSummary, parent: str) -> str | None:
        """Why the run that called this one needs it, if its log is in another folder.

        :raises RunNotFoundError: it is gone
        :raises LogError: this run's log cannot be read
        :raises OSError: so, too
        """
        folder = folder_of_parent(self._store, run.workflow_id)
        if folder == self._store.folder:  # it is gone
            return None
        if _files.system().identity_of_name(str(folder)) is None:
            return f"run {parent!r}, which called it, was in {folder}, which is not there"
        status = Store(folder).summary(parent).status
        return None if status == "completed" else _unfinished(f"{parent!r} in {folder}")

    def _protection(self, run: RunSummary, found: RunFiles) -> str | None:
        if run.status == "running":
            return "a process executes it"
        if run.status not in _ENDED and self._rules.status is None:
            return f"it is {run.status}: --status {run.status} removes it"
        if self._is_unsent(run.workflow_id, list(found.side_logs)):
            return "its spans are still to be sent: `tapps-otel send`, or --unsent"
        return None

    def _is_unsent(self, workflow_id: str, side_logs: Sequence[Path]) -> bool:
        if self._with_unsent:
            return False
        from tapps_otel.otel.replay.unsent import is_unsent  # heavy: OpenTelemetry

        return is_unsent(self._store, workflow_id, side_logs, wanted=self._wanted)

    def _remove(
        self, run: RunSummary, found: RunFiles, why: str, tombstones: Tombstones | None
    ) -> str | None:
        """Remove a run; return why it was kept, if it was."""
        if tombstones is not None:
            try:
                with self._leased(run.workflow_id):
                    if not self._bury(run, found, why, tombstones):
                        return "it was written to a moment ago"
                    remove_run(self._store, run.workflow_id, found.side_logs)
            except RunBusyError:
                return "a process executes it"
        del self._runs[run.workflow_id]
        self._count(PrunedRun(run.workflow_id, run.status, found.size, why))
        return None

    def _count(self, pruned: PrunedRun) -> None:
        self.report.pruned.append(pruned)
        self.report.left -= pruned.size
        self._progress(pruned)

    @contextmanager
    def _leased(self, workflow_id: str) -> Iterator[None]:
        lease = Lease(self._store.lease_path(workflow_id), workflow_id)
        try:
            yield
        finally:
            lease.release()

    def _bury(self, run: RunSummary, found: RunFiles, why: str, tombstones: Tombstones) -> bool:
        """Write a run's tombstone; ``False`` if it has changed since it was looked at."""
        path = self._store.log_path(run.workflow_id)
        check_own(path)
        log = check(path, run.workflow_id)
        if log.size != run.size:
            return False
        sides = [check(side, run.workflow_id) for side in sorted(found.side_logs)]
        tombstones.add(
            {
                "run": run.workflow_id,
                **_head_fields(log),
                "status": run.status,
                "workflow": run.workflow or "",
                "side_logs": [f"{one.path.name} {one.seq} {one.sha}" for one in sides],
                "bytes": found.size,
                "why": why,
                **person(),
            }
        )
        return True

    # -- spans outside any run

    def _prune_traces(self, tombstones: Tombstones | None) -> None:
        """Remove old side logs of spans outside any run: only these are selected by age."""
        before_ns, found = self._rules.before_ns, self.files.get(NO_RUN)
        if before_ns is None or found is None:
            return
        for path, changed_ns in found.side_logs.items():
            why = self._rules.condition(changed_ns, 0)
            name = path.name.removesuffix(".jsonl")
            if why is None:
                continue
            if self._is_unsent(NO_RUN, [path]):
                why = "its spans are still to be sent: `tapps-otel send --all`, or --unsent"
                self.report.kept.append(KeptRun(name, None, why))
                continue
            log = check(path, NO_RUN)
            if tombstones is not None:
                tombstones.add(
                    {"run": name, **_head_fields(log), "bytes": log.size, "why": why, **person()}
                )
                remove_side_log(path)
            self._count(PrunedRun(name, None, log.size, why))


def _unfinished(caller: str) -> str:
    return f"run {caller}, which called it, has not completed"


def _head_fields(log: CheckReport) -> dict[str, Any]:
    fields: dict[str, Any] = {"seq": log.seq, "sha": log.sha}
    if not log.ok and log.region is not None:
        fields["damage"] = f"byte {log.region.offset}: {log.region.problem}"
    return fields
