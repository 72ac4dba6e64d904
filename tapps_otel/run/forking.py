"""Forks: a new run that begins with what another one had finished before one of its steps began.

The other run is only read: no lease of it is taken, so it may be in progress. The new log has its
name once it is complete.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import UNSET, Raw

from tapps_otel import clock, settings
from tapps_otel.errors import (
    LogDamagedError,
    LogWriteError,
    RunConflictError,
    WorkflowInputError,
)
from tapps_otel.log import files as _files
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.cipher import cipher_of
from tapps_otel.log.encrypted import decrypt_event, decrypting, locked_error, problem_of
from tapps_otel.log.event import Event, encode
from tapps_otel.log.reader import Checker, read
from tapps_otel.names import (
    RESERVED,
    check_workflow_id,
    new_span_id,
    new_trace_id,
    new_workflow_id,
)
from tapps_otel.otel.resource import of_process
from tapps_otel.otel.seam import SpanRef, note_of_fork
from tapps_otel.past.fold import HANDLED, RESOLVED, Fold, collector_paused
from tapps_otel.past.forks import taken_over
from tapps_otel.run.codecs.native import from_json, to_json
from tapps_otel.run.execution_start import process_here
from tapps_otel.run.lookup import blobs_of, check_own, find, inputs_of
from tapps_otel.run.person import person

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.store import Store
    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["fork"]

_EXECUTION: Final = 1  # of the new run: what it takes over
_MOST_NAMED: Final = 20  # steps in a message
_MOST_ANCESTORS: Final = 100


def fork(
    workflow_id: str,
    *,
    from_step: str,
    inputs: Mapping[str, Any] | None = None,
    new_workflow_id: str | None = None,
    log_dir: Path | str | None = None,
) -> str:
    """Make a new run that begins with what a run had finished before one of its steps began.

    A resume of the new run takes that from its log, and runs the step and whatever else had not
    finished by then. The given run stays as it is; it may be in progress.

    :param from_step: the step's id; or its name, if no other step has that
    :param inputs: arguments of the workflow to change, by name, JSON-native; the resume checks them
    :param new_workflow_id: of the new run; by default it gets one
    :returns: the id of the new run
    :raises RunNotFoundError: there is no such run
    :raises UntrustedFileError: another user may have written its log
    :raises RunConflictError: it has no such step, or an executor runs it; the new id is taken
    :raises RunBusyError: a run of the new id is in progress
    :raises WorkflowInputError: the inputs cannot be stored
    :raises LogDamagedError: the log is damaged before that step
    :raises BlobDamagedError: a large value is damaged
    :raises EncryptionKeyError: values of the run are encrypted with a key that is not configured
    :raises DecryptionError: they cannot be decrypted
    :raises LogWriteError: the new log cannot be written
    :raises StoreError: the store of runs cannot be reached
    """
    store, name = find(workflow_id, log_dir)
    store.summary(name)  # a file that is not a log is no run
    check_own(store.log_path(name))  # a resume trusts the code that the user's own fork names
    source = _read(store, name, from_step)
    new_id = _free_id(source.history, new_workflow_id)
    path = store.log_path(new_id)
    try:
        lease = store.lease(new_id)
        try:
            if lease.session is not None:
                lease.session.prepare(path)  # a run of this id comes to light
            _refuse_existing(store, new_id)
            try:
                _Writing(store, source, new_id).write(path, inputs)
            except BaseException:
                if not _files.system().exists(path):
                    with suppress(OSError):
                        _files.system().remove_folder(store.blobs_folder(new_id))
                raise
            if lease.session is not None:
                lease.session.catch_up(path)
        finally:
            lease.release()
    except OSError as error:
        raise LogWriteError(path, str(error)) from error
    return new_id


def _refuse_existing(store: Store, name: str) -> None:
    """Refuse an id of which there is a file: also the ledger of a log that was deleted.

    :raises RunConflictError: there is one
    """
    for path in (store.log_path(name), store.ledger_path(name), *store.side_paths().get(name, [])):
        if _files.system().exists(path):
            raise RunConflictError(f"{path} exists: choose another id for the fork (--id)")


class _Source(NamedTuple):
    """The run that is forked.

    :ivar history: up to the start of the step
    :ivar sha: of the line that starts it
    """

    store: Store
    name: str
    history: RunHistory
    step: StepHistory
    sha: str


def _read(store: Store, name: str, wanted: str) -> _Source:
    """Read a run up to the first start of a step.

    :raises RunConflictError: there is none
    """
    found = _read_until(store, name, wanted)
    if isinstance(found, _Source):
        return found
    named = [step.step_id for step in found.by_id.values() if step.name == wanted]
    if len(named) == 1:
        found = _read_until(store, name, named[0])
        if isinstance(found, _Source):
            return found
    others = named or [*found.by_id]
    shown = ", ".join(map(repr, others[:_MOST_NAMED])) or "none"
    what = "several steps named" if named else "no step"
    raise RunConflictError(
        f"run {name!r} has {what} {wanted!r}. {'Their ids' if named else 'Its steps'}: {shown}"
        f"{', ...' if len(others) > _MOST_NAMED else ''}. `tapps-otel show {name}` lists all"
    )


def _read_until(store: Store, name: str, step_id: str) -> _Source | RunHistory:
    """Fold a run up to the first start of a step; the whole history, if it never started."""
    path, fold = store.log_path(name), Fold(name)
    checker = Checker(path, name)
    feed = decrypting(fold.feed, settings.current().codec)
    with collector_paused():
        for event in read(path, name, checker=checker):
            feed(event)
            begins = event.step_id == step_id and event.event_type == "step_start"
            if begins and fold.history.executions:  # a log that was made to harm may have none
                _refuse_executor(fold.history)
                if fold.history.locked is not None:
                    raise fold.history.locked.error(name)
                step = fold.history.by_id[step_id]
                return _Source(store, name, fold.history, step, checker.sha.decode())
    _refuse_executor(fold.history)
    return fold.history


def _refuse_executor(history: RunHistory) -> None:
    if history.foreign:
        raise RunConflictError(
            f"run {history.workflow_id!r} is of the executor {history.workflow.get('executor')!r}, "
            "which itself decides what runs and has a state of its own: it cannot be forked"
        )


def _free_id(history: RunHistory, given: str | None) -> str:
    if given is None:
        return new_workflow_id(history.name, clock.timestamp(clock.time_ns()))
    if given in RESERVED:
        raise RunConflictError(f"no run can be named {given!r}: choose another id for the fork")
    return check_workflow_id(given)


class _Writing:
    """Writes the log of a fork."""

    def __init__(self, store: Store, source: _Source, new_id: str) -> None:
        self._source, self._new_id = source, new_id
        self._taken = taken_over(source.history, source.step.step_id)
        self._config = settings.current()
        self._from: Blobs = blobs_of(store, source.name)
        self._to: Blobs = blobs_of(store, new_id)
        self._ids = {"trace_id": new_trace_id(), "span_id": new_span_id()}
        first, step = source.history.executions[0], source.step.last
        self._began, self._until = first.timestamp, max(step.timestamp, first.timestamp)

    def write(self, path: Path, inputs: Mapping[str, Any] | None) -> None:
        """Write the log, which gets its name once it is complete."""
        files, cipher, sha = _files.system(), cipher_of(self._to), b""
        sync = self._config.durability != "os"
        with (
            files.new_file(path, replace=False, sync=sync) as descriptor,
            files.writer(descriptor) as output,
        ):
            for seq, event in enumerate(self._events(inputs), 1):
                event.seq = seq
                line, sha = encode(event, sha) if cipher is None else cipher.line(event, sha)
                output.write(line)

    def _events(self, inputs: Mapping[str, Any] | None) -> Iterator[Event]:
        yield self._start(self._inputs(inputs))
        yield from self._copies()
        for step in self._taken.handled:
            yield self._handled(step)
        for step in self._taken.open:
            yield self._stopped(step)
            yield self._may_run_again(step)
        yield self._end()

    def _inputs(self, changes: Mapping[str, Any] | None) -> bytes:
        stored = inputs_of(self._source.history, self._from)
        if not changes:
            return stored
        try:
            return to_json({**from_json(stored), **changes})
        except TypeError as error:
            raise WorkflowInputError(
                f"the inputs of the fork cannot be stored: {error}", str(error).partition(":")[0]
            ) from None

    def _start(self, inputs: bytes) -> Event:
        history, step = self._source.history, self._source.step
        origin = history.forked_from
        earlier = () if origin is None else (origin.workflow_id, *origin.ancestors)
        event = self._event("workflow_start", self._began, status="running", **self._ids)
        event.workflow = {
            **{name: one for name, one in history.workflow.items() if name != "parent"},
            "forked_from": {
                "workflow_id": self._source.name,
                "step_id": step.step_id,
                "seq": step.last.start_seq,
                "sha": self._source.sha,
                "ancestors": list(earlier[:_MOST_ANCESTORS]),
                **person(),
            },
        }
        event.process = process_here(self._config.durability)
        event.resource = of_process()
        root = history.executions[0]
        if root.trace_id is not None and root.span_id is not None:
            flags = 1 if root.flags is None else root.flags
            event.otel = {"links": note_of_fork(SpanRef(root.trace_id, root.span_id, flags))}
        if len(inputs) <= INLINE_LIMIT:
            event.inputs = Raw(inputs)
        else:
            event.inputs_blob = self._to.put_value(inputs)
        return event

    def _copies(self) -> Iterator[Event]:
        """Copy what is taken over, with its large values."""
        source, taken = self._source, self._taken
        path = source.store.log_path(source.name)
        checker = Checker(path, source.name)
        try:
            for event in read(path, source.name, checker=checker):
                if taken.takes(event):
                    yield self._copy(event, checker.sha.decode())
        except LogDamagedError:
            if checker.seq < taken.before:
                raise
            # What comes later is not needed; it could only have been digests of files.

    def _copy(self, event: Event, sha: str) -> Event:
        decrypt_event(event, self._config.codec)  # before what it is bound to changes
        if event.encrypted is not UNSET and (problem := problem_of(event.encrypted)):
            place = f"seq {event.seq} ({event.event_type})"
            raise locked_error(self._source.name, place, event.encrypted.key, problem)
        event.encrypted = event.unsynced = UNSET
        event.origin = {"workflow_id": event.workflow_id, "seq": event.seq, "sha": sha}
        event.workflow_id, event.execution, event.late = self._new_id, _EXECUTION, True
        event.trace_id = event.span_id = event.parent_span_id = UNSET  # its span is sent already
        event.otel = event.otel_blob = UNSET
        for field in ("inputs_blob", "result_blob"):
            name = getattr(event, field)
            if name is not UNSET:
                setattr(event, field, self._to.put_value(self._from.get(name)))
        return event

    def _handled(self, step: StepHistory) -> Event:
        """State what the log does not tell any more: that the run continued after this failure."""
        return self._event("annotation", self._until, step_id=step.step_id, name=HANDLED)

    def _stopped(self, step: StepHistory) -> Event:
        """End what was in progress, or had failed: it runs again."""
        last = step.last
        so_far = clock.timestamp_ns(self._until) - last.started_ns
        return self._event(
            "step_fail",
            self._until,
            step_id=step.step_id,
            step=step.name,
            agent=step.agent,
            action=step.action,
            attempt=last.number,
            status="cancelled",
            reason=f"the fork begins before step {self._source.step.step_id}",
            duration_ns=max(0, so_far) if last.duration_ns is None else last.duration_ns,
        )

    def _may_run_again(self, step: StepHistory) -> Event:
        """State that whoever makes the fork wants what was in progress to run again."""
        return self._event(
            "annotation",
            self._until,
            step_id=step.step_id,
            name=RESOLVED,
            attributes={"by": "fork", **person()},
        )

    def _end(self) -> Event:
        name, step_id = self._source.name, self._source.step.step_id
        began, until = map(clock.timestamp_ns, (self._began, self._until))
        return self._event(
            "workflow_end",
            clock.timestamp(clock.time_ns()),
            status="interrupted",
            reason=f"forked from run {name} before step {step_id}: a resume continues there",
            duration_ns=max(0, until - began),
            **self._ids,
        )

    def _event(self, event_type: str, at: str, **fields: Any) -> Event:
        return Event(
            event_type=event_type,
            workflow_id=self._new_id,
            timestamp=at,
            execution=_EXECUTION,
            late=True,
            **fields,
        )
