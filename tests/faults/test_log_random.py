"""Random lives of a log: appends, failing disks, kills, power cuts, in any order.

After each opening, acknowledged events are in the log once and in order, the independent checker
accepts the log, and every byte that the disk kept is in its place.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import independent_checker
from disks import CachedDisk
from effort import examples
from logs import ID, Settable, event, start
from tapps_otel import clock
from tapps_otel.log import files as log_files
from tapps_otel.log.event import SYNCED
from tapps_otel.log.writer import LogWriter

KINDS = ["step_start", "annotation", "step_finish", "step_fail", "span", "workflow_end"]


class Disk(CachedDisk):
    """A disk that knows whether a failed sync has lost something that was not written again."""

    lost = False

    def sync(self, descriptor: int) -> None:
        self.lost = self.lost or self.fail_sync
        super().sync(descriptor)


class LogLife(RuleBasedStateMachine):
    @initialize(durability=st.sampled_from(["commit", "always"]))
    def begin(self, durability: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / f"{ID}.jsonl"
        self.disk, self.now = Disk(self.path), Settable()
        self.durability, self.boot = durability, 0
        self.next_mark = 0
        self.acknowledged: list[int] = []  # by the process: survive its death
        self.durable: list[int] = []  # promised to survive a power cut
        self.execution = 0
        self.writer: LogWriter | None = None
        self.open()

    def open(self) -> None:
        self.execution += 1
        process = {"boot_id": f"boot{self.boot}", "durability": self.durability}
        with log_files.use(self.disk), clock.use(self.now):
            self.writer = LogWriter(
                self.path,
                ID,
                durability=self.durability,  # type: ignore[arg-type]
                boot_id=f"boot{self.boot}",
            )
            self.writer.append(start(process=process, execution=self.execution))
        self.audit()

    def audit(self) -> None:
        found = [
            one["attributes"]["mark"]
            for one in independent_checker.check(self.path)
            if "mark" in one.get("attributes", {})
        ]
        assert found == sorted(set(found))
        assert set(self.acknowledged) <= set(found)

    @rule(kind=st.sampled_from(KINDS), size=st.sampled_from([0, 30, 5000]))
    def append(self, kind: str, size: int) -> None:
        assert self.writer is not None
        mark, self.next_mark = self.next_mark, self.next_mark + 1
        with clock.use(self.now):
            seq = self.writer.append(event(kind, mark, name="x" * size))
        self.now.now += 600_000_000
        if self.writer.failure is None:  # it has written again what a failed sync had lost
            self.disk.lost = False
        if seq is not None:
            self.acknowledged.append(mark)
            if kind in SYNCED or self.durability == "always":
                self.durable = self.acknowledged.copy()

    @rule(keep=st.sampled_from([0, 1, 74, 200, 100_000]))
    def the_next_write_fails(self, keep: int) -> None:
        self.disk.fail_write, self.disk.keep = True, keep

    @rule()
    def the_next_sync_fails(self) -> None:
        self.disk.fail_sync = True

    @rule()
    def killed(self) -> None:
        assert self.writer is not None
        self.writer.detach()  # what it held in memory is gone
        if self.disk.lost:  # and so is what it was to write again
            self.acknowledged = self.durable.copy()
        self.disk.fail_write = self.disk.fail_sync = self.disk.lost = False
        self.open()

    @rule(share=st.floats(0, 1), nul=st.booleans())
    def power_cut(self, share: float, nul: bool) -> None:
        """Of what was not synced a part reached the disk; the rest is gone, or is NULs."""
        assert self.writer is not None
        self.writer.detach()
        unsynced = self.path.read_bytes()[self.disk.synced_to :]
        kept = unsynced[: int(len(unsynced) * share)]
        left = self.disk.on_disk + kept + b"\0" * ((len(unsynced) - len(kept)) if nul else 0)
        self.path.write_bytes(left)
        self.disk.on_disk, self.disk.synced_to = left, len(left)
        self.disk.fail_write = self.disk.fail_sync = self.disk.lost = False
        self.acknowledged = self.durable.copy()
        self.boot += 1
        self.open()
        assert self.path.read_bytes().startswith(left)

    @invariant()
    def nothing_is_doubled(self) -> None:
        if getattr(self, "writer", None) is not None and self.writer.failure is None:  # type: ignore[union-attr]
            self.audit()

    def teardown(self) -> None:
        if getattr(self, "writer", None) is not None:
            self.writer.detach()  # type: ignore[union-attr]
            shutil.rmtree(self.folder)


TestLogLife = LogLife.TestCase
TestLogLife.settings = settings(
    max_examples=examples(60),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
