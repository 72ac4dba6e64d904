"""Finding runs in a folder of logs; what a store has of one is pulled first."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

from msgspec import UNSET

from tapps_otel import settings
from tapps_otel.errors import AmbiguousIdError
from tapps_otel.log import files as _files
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.encrypted import decrypting
from tapps_otel.log.event import decode
from tapps_otel.log.home import home_of
from tapps_otel.log.pulling import pull_if_reachable
from tapps_otel.log.reader import Checker, lines, raise_if_damaged, read
from tapps_otel.log.store import RunSummary, Store
from tapps_otel.log.tail import event_type_of, older_lines
from tapps_otel.names import LAST_RUN, log_name
from tapps_otel.past.fold import Fold, collector_paused

if TYPE_CHECKING:
    from tapps_otel.past.fold import RunHistory
    from tapps_otel.settings_model import Settings

__all__ = [
    "StoredRun",
    "blobs_of",
    "check_own",
    "choose",
    "find",
    "fold_log",
    "folder_of_parent",
    "inputs_of",
    "last_of",
    "load",
    "look_up",
    "means_last",
    "store_of",
]

_MOST_NAMED: Final = 5  # runs in a message


def store_of(log_dir: Path | str | None) -> Store:
    """The folder of logs: the one given, otherwise the one in the settings."""
    config = settings.current()
    return Store(Path(log_dir or config.log_dir).absolute(), home_of(config))


def find(workflow_id: str, log_dir: Path | str | None) -> tuple[Store, str]:
    """The folder of logs, and the name of a run's log in it.

    :param workflow_id: that name, or the id that a third-party executor gave the run
    :raises InvalidIdError: it cannot name a log, and no third-party run has that id
    :raises StoreError: the store cannot be reached, and the folder has no such run
    """
    store = store_of(log_dir)
    name = store.name_of(workflow_id)
    pull_if_reachable(store, name)
    return store, name


def choose(given: str, log_dir: Path | str | None) -> str:
    """The name of the log of the run that the argument names.

    :param given: its id, or the id that a third-party executor gave it; the beginning of one run's
        id; or ``@last``, the run that was written to last
    :returns: ``given`` itself if no run is found
    :raises AmbiguousIdError: several ids begin like this
    :raises InvalidIdError: it cannot name a log, and no third-party run has that id
    :raises RunNotFoundError: the last run is asked for, and there is none
    :raises StoreError: the store cannot be reached, and the folder has no such run
    """
    store = store_of(log_dir)
    name = last_of(store).workflow_id if means_last(given, store) else store.name_of(given)
    pull_if_reachable(store, name)
    if store.exists(name):
        return name
    found = list(islice(store.beginning_with(name), _MOST_NAMED + 1))
    if len(found) > 1:
        raise AmbiguousIdError(given, found[:_MOST_NAMED], more=len(found) > _MOST_NAMED)
    if not found:
        return name
    pull_if_reachable(store, found[0])
    return found[0]


def means_last(given: str, store: Store) -> bool:
    """Whether an argument means the run that was written to last: no log has this name itself."""
    return given == LAST_RUN and not store.exists(log_name(LAST_RUN))


def last_of(store: Store) -> RunSummary:
    """The run that was written to last.

    :raises RunNotFoundError: there is no run
    """
    last = store.last()
    if last is None:
        raise store.not_found(LAST_RUN)
    return last


def load(workflow_id: str, log_dir: Path | str | None = None) -> RunHistory:
    """Read, check and fold a run's log.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed
    :raises LogVersionError: a newer format
    """
    store, workflow_id = find(workflow_id, log_dir)
    return fold_log(store, workflow_id).history


def fold_log(store: Store, workflow_id: str) -> Fold:
    """The fold of a run's whole log.

    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed
    :raises LogVersionError: a newer format
    """
    fold = Fold(workflow_id)
    feed = decrypting(fold.feed, settings.current().codec)
    try:
        with collector_paused():
            for event in read(store.log_path(workflow_id), workflow_id):
                feed(event)
    except FileNotFoundError:
        raise store.not_found(workflow_id) from None
    return fold


class StoredRun:
    """A run as one look at its log shows it: how it began, and how it stands.

    The log is opened once for both. As a context manager it closes the log in the end.

    :ivar name: of the log
    :ivar file: the open log
    :ivar history: of the run's start: its workflow and its inputs, no step
    :ivar summary: how the run stands
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed before the run's start
    :raises LogVersionError: a newer format
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        try:
            self.file: BinaryIO = _files.system().open_read(store.log_path(name))
        except FileNotFoundError:
            raise store.not_found(name) from None
        try:
            self.history = self._read_start()
            self.summary: RunSummary = store.summary_of(self.file, name)
        except BaseException:
            self.file.close()
            raise

    def _read_start(self) -> RunHistory:
        path, fold = self.store.log_path(self.name), Fold(self.name)
        feed = decrypting(fold.feed, settings.current().codec)
        checker = Checker(path, self.name)
        with _files.system().reader(self.file.fileno()) as file:
            for line in lines(file):
                event = checker.feed(line)
                if event is not None:
                    feed(event)
                    if event.event_type == "workflow_start":
                        return fold.history
        raise_if_damaged(checker, path)
        raise self.store.not_found(self.name)

    @property
    def workflow(self) -> dict[str, Any]:
        """What the last execution wrote of the workflow: it may have found it in another place."""
        if self.summary.execution > 1:
            for line in older_lines(self.file.fileno(), self.summary.size):
                if event_type_of(line) == "workflow_resume" and (found := _workflow_of(line)):
                    return found
        return self.history.workflow

    @property
    def inputs(self) -> bytes:
        """The inputs that it began with, as JSON.

        :raises DecryptionError: they cannot be decrypted
        """
        if self.history.inputs_locked is not None:  # the code that gives the key may be loaded now
            self.history = self._read_start()
        return inputs_of(self.history, blobs_of(self.store, self.name))

    def check_own(self) -> None:
        """Check that what the log names may be executed.

        :raises UntrustedFileError: another user may have written it
        """
        _files.system().check_own(self.file.fileno(), self.store.log_path(self.name))

    def close(self) -> None:
        """Close the log."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _workflow_of(line: bytes) -> dict[str, Any] | None:
    """The field ``workflow`` of an event; ``None`` if the line is torn or damaged."""
    try:
        event = decode(line)
    except ValueError:
        return None
    return None if event.workflow is UNSET else event.workflow


def check_own(path: Path) -> None:
    """Check that a log is this user's own.

    :raises UntrustedFileError: another user may have written it
    """
    files = _files.system()
    with files.open_read(path) as file:
        files.check_own(file.fileno(), path)


def look_up(workflow_id: str, log_dir: Path | str | None = None) -> StoredRun:
    """Look a run up by its id.

    :raises InvalidIdError: it cannot name a log, and no third-party run has that id
    :raises RunNotFoundError: there is no such run
    :raises LogDamagedError: the log was changed before the run's start
    :raises LogVersionError: a newer format
    """
    return StoredRun(*find(workflow_id, log_dir))


def blobs_of(store: Store, workflow_id: str, config: Settings | None = None) -> Blobs:
    """The folder of the run's large values.

    :param config: the settings; by default, those in force
    """
    config = config or settings.current()
    return Blobs(
        store.blobs_folder(workflow_id), sync=config.durability != "os", codec=config.codec
    )


def inputs_of(history: RunHistory, blobs: Blobs) -> bytes:
    """The inputs that a run began with, as JSON.

    :raises DecryptionError: they cannot be decrypted
    """
    if history.inputs_locked is not None:
        raise history.inputs_locked.error(history.workflow_id)
    stored = blobs.get(history.inputs_blob) if history.inputs_blob else history.inputs
    return stored or b"{}"


def folder_of_parent(store: Store, name: str) -> Path:
    """The folder with the log of the run whose step called a run first.

    :raises RunNotFoundError: there is no such called run
    :raises LogDamagedError: its log was changed before its start
    :raises LogVersionError: a newer format
    :raises OSError: it cannot be read
    """
    with StoredRun(store, name) as found:
        parent = found.history.parent
    return store.folder if parent is None or parent.log_dir is None else Path(parent.log_dir)
