"""A place of its own for the runs of a test."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from tapps_otel import clock, names, settings
from tapps_otel.audit.verify import verify_all
from tapps_otel.run.queries import events, history, list_runs
from tapps_otel.testing.set_clock import SetClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.log.model import WorkflowEvent
    from tapps_otel.past.fold import RunHistory

__all__ = ["Runs", "isolated_runs"]

_VARIABLE: Final = "TAPPS_OTEL_LOG_DIR"


class Runs:
    """The runs of a test: their logs are in a folder of its own.

    :ivar log_dir: that folder
    :ivar clock: the clock of all runs
    """

    def __init__(self, log_dir: Path, set_clock: SetClock, ids: Random) -> None:
        self.log_dir, self.clock, self._ids = log_dir, set_clock, ids

    def __iter__(self) -> Iterator[RunHistory]:
        """Yield the history of each run, the one written to last first."""
        return (self[run.workflow_id] for run in list_runs(log_dir=self.log_dir))

    def __getitem__(self, workflow_id: str) -> RunHistory:
        """Return the history of a run.

        :raises RunNotFoundError: there is none of this id
        """
        return history(workflow_id, log_dir=self.log_dir)

    def events(self, workflow_id: str) -> list[WorkflowEvent]:
        """Return the events of a run."""
        return list(events(workflow_id, log_dir=self.log_dir))

    def seed(self, number: int) -> None:
        """Make the ids of runs, traces and spans from now on the same ones in every test run."""
        self._ids.seed(number)

    def check(self) -> None:
        """Verify the logs.

        :raises LogDamagedError: one does not agree with its hash chain
        """
        for report in verify_all(log_dir=self.log_dir):
            report.raise_if_bad()


@contextmanager
def isolated_runs(folder: Path) -> Iterator[Runs]:
    """Give the runs in the block a folder, without syncs, spans and waits; the fixture ``runs``.

    Settings, clock and ids are as before afterwards. Child processes use the folder, too.
    """
    set_clock, ids = SetClock(), Random(os.urandom(32))  # noqa: S311 - ids need not be secret
    before = os.environ.get(_VARIABLE)
    with ExitStack() as stack:
        stack.enter_context(
            settings.use(
                enabled=True, log_dir=folder.absolute(), durability="os", spans=False, metrics=False
            )
        )
        stack.enter_context(clock.use(set_clock))
        stack.enter_context(names.use_ids(ids))
        os.environ[_VARIABLE] = str(folder.absolute())
        try:
            yield Runs(folder.absolute(), set_clock, ids)
        finally:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before
