"""``watch``: a run while it is executed, over crashes and resumes, until it ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tapps_otel import clock
from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import next_lines, resume_hint
from tapps_otel.cli.live import LiveView
from tapps_otel.cli.terminal import err, out
from tapps_otel.errors import LogDamagedError, LogVersionError, RunNotFoundError
from tapps_otel.log import lease
from tapps_otel.log.follower import Follower
from tapps_otel.report.history import error_text, mark
from tapps_otel.report.lines import Line, took
from tapps_otel.report.live import counts, execution_text
from tapps_otel.report.text import counted, few, plain, shorten

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.report.progress import Progress

__all__ = ["watch"]

_POLL: Final = 0.2  # seconds
_RESUMABLE: Final = frozenset({"running", "interrupted"})  # it has not ended, or may be resumed
_CODES: Final = {  # of any other end: FAILED
    "completed": Code.OK,
    "paused": Code.REFUSED,
    "running": Code.INTERRUPTED,
    "interrupted": Code.INTERRUPTED,
}
_LONG: Final = 2000  # columns of an error


def watch(workflow_id: str, *, wait: bool, log_dir: Path | None) -> Code:
    """Show a run until it ends.

    :param wait: wait for the resume of a run that was interrupted
    """
    from tapps_otel.run.lookup import find

    store, name = find(workflow_id, log_dir)
    store.summary(name)  # raises for a file that is not a log
    watching = _Watching(store, name, waits=wait)
    try:
        with watching:
            watching.to_the_end()
    except (LogDamagedError, LogVersionError):
        out().say(Line.of(("✗ ", "bad"), (plain(name), "strong"), " damaged; before the damage:"))
        out().say(counts(watching.progress))
        raise
    except KeyboardInterrupt:
        err().say(Line.of(("stopped watching: the run is not affected", "dim")))
        return Code.INTERRUPTED
    out().say(_ending(name, watching.progress))
    if watching.progress.status == "paused":
        from tapps_otel.run.reading import read_run

        out().say(*next_lines(read_run(store, name), log_dir))
    elif watching.progress.status != "completed":
        out().say(*resume_hint(store, name, log_dir))
    return _CODES.get(watching.progress.status, Code.FAILED)


class _Watching:
    """One run that is watched."""

    def __init__(self, store: Store, name: str, *, waits: bool) -> None:
        self._store, self._name, self._waits = store, name, waits
        self._follower = self._open()
        self._view = LiveView(out(), name)
        self._is_new = False  # what is there at first is shown as it stands

    def _open(self) -> Follower:
        try:
            return Follower(self._store.log_path(self._name), self._name)
        except FileNotFoundError:
            raise self._store.not_found(self._name) from None

    @property
    def progress(self) -> Progress:
        """The run as far as it was read."""
        return self._view.progress

    def to_the_end(self) -> None:
        """Show the run until it ends, or is interrupted and not waited for."""
        while not self._look():
            self._view.draw()
            clock.sleep(_POLL)

    def _look(self) -> bool:
        """Show what is new, and return whether that is the end."""
        if self._follower.is_replaced and not self._follow_replacement():
            return False
        self._read()
        if self.progress.status in _RESUMABLE:
            self._look_for_process()
        if not self._is_new:
            self._is_new = True
            self._view.say_standing()
        is_over = self.progress.status not in _RESUMABLE
        return is_over or (self._view.stopped is not None and not self._waits)

    def _read(self) -> None:
        """Read to the end of the log."""
        while True:
            for event, _ in self._follower.read():
                self._take(event)
            if self._follower.at_end:
                break
            self._view.draw()
        self._follower.raise_if_damaged()

    def _take(self, event: Event) -> None:
        before = self.progress.last_ns
        self._view.take(event, is_new=self._is_new)
        if event.event_type in {"workflow_start", "workflow_resume"}:
            self._view.stopped = None
            if self._is_new:
                text = execution_text(self.progress)
                if before:  # otherwise the log had no event
                    down = took(max(0, self.progress.began_ns - before))
                    text += f", {down} after the last event"
                self._view.say(Line.of(("… ", "strong"), text))

    def _look_for_process(self) -> None:
        """Find out whether a process executes the run."""
        if lease.holder(self._store.lease_path(self._name)) is not None:
            self._view.stopped = None
            return
        self._read()  # what was written before the lease ended is there now
        if self._view.stopped is None and self._ends_without_newline():
            for event, _ in self._follower.read_last():
                self._take(event)
        if self._view.stopped is None and self.progress.status in _RESUMABLE:
            self._view.stopped = "interrupted: waiting for its resume (Ctrl-C ends this)"
            if self._is_new:
                self._view.say(Line.of(("! ", "warn"), (_interrupted(self.progress), "warn")))

    def _ends_without_newline(self) -> bool:
        """Whether the log holds the run's end, and a power cut took only its newline."""
        return self._store.summary(self._name).status not in {*_RESUMABLE, "damaged"}

    def _follow_replacement(self) -> bool:
        """Read the file that has the log's name now; return whether there is one."""
        try:
            replacement = self._open()
        except RunNotFoundError:
            if not self._waits:
                raise
            self._view.stopped = "its log was removed: waiting for another (Ctrl-C ends this)"
            return False
        self._follower.close()
        self._follower = replacement
        self._view.restart()
        self._view.say(Line.of(("! ", "warn"), ("the log was replaced, and is read anew", "warn")))
        self._is_new = False
        return True

    def __enter__(self) -> None:
        self._view.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._view.__exit__(*exc)
        self._follower.close()


def _interrupted(progress: Progress) -> str:
    running = [plain(one.step_id) for one in progress.running]
    where = f" in the middle of {few(running, 3)}" if running else ""
    return f"interrupted{where}: {execution_text(progress)} ended"


def _ending(name: str, progress: Progress) -> Line:
    """Tell how a run ended."""
    status = "interrupted" if progress.status == "running" else progress.status
    sign = mark(status)
    steps = counted(progress.finished, "step")
    time = "" if progress.took_ns is None else f" after {took(progress.took_ns)}"
    text = f" {plain(status)}{time}, {steps} finished"
    error = "" if progress.error is None else f": {shorten(error_text(progress.error), _LONG)}"
    asks = f": asks {shorten(plain(progress.question), _LONG)}" if progress.question else ""
    return Line.of(
        (f"{sign.text} ", sign.style), (plain(name), "strong"), text, (error, "bad"), (asks, "warn")
    )
