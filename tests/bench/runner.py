"""Runs the measurements: every one in a process of its own, round robin over all cases."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cases import Case, Fixture, Size
from .envs import OWN, PEERS, interpreter, missing
from .systems.common import CRASHED

TIMEOUT = 900.0
TESTS = Path(__file__).resolve().parent.parent
LAST_LINES = 4
KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")


class MeasurementError(Exception):
    """A measured program failed."""


@dataclass
class Outcome:
    """Everything that one run of the command measured."""

    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Runner:
    """Measures cases in ``work``, a folder on a disk; ``tell`` prints the progress."""

    work: Path
    quick: bool
    tell: Callable[[str], None]
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, cases: Sequence[Case], reps: int) -> Outcome:
        """All rounds; what cannot be measured is found before the first, with its reason."""
        able = [case for case in cases if self._can(case)]
        for fixture in {case.fixture.name: case.fixture for case in able if case.fixture}.values():
            self._prepare(fixture)
        for rep in range(reps):
            self.outcome.rounds.append({})
            for case in able:
                self.tell(f"round {rep + 1} of {reps}: {case.name}")
                self._measure(case)
        return self.outcome

    def _can(self, case: Case) -> bool:
        how = missing(case.env, case.needs)
        if how is not None:
            self.outcome.not_measured[case.name] = how
        return how is None

    def _size(self, size: Size) -> int:
        return size.quick if self.quick else size.full

    def _prepare(self, fixture: Fixture) -> None:
        folder = self.work / "fixtures" / fixture.name
        folder.mkdir(parents=True)
        self.tell(f"preparing {fixture.name}")
        request = {"n": self._size(fixture.size), "stage": "prepare", "option": fixture.option}
        try:
            launch(fixture.module, fixture.env, folder, request)
        except MeasurementError as error:
            self.outcome.failed[fixture.name] = str(error)

    def _measure(self, case: Case) -> None:
        if case.name in self.outcome.failed or (
            case.fixture and case.fixture.name in self.outcome.failed
        ):
            return
        request = {"n": self._size(case.size), "option": case.option}
        with tempfile.TemporaryDirectory(dir=self.work, ignore_cleanup_errors=True) as scratch:
            folder = self._folder(case.fixture, Path(scratch))
            try:
                said = json.loads(launch(case.module, case.env, folder, request).splitlines()[-1])
            except (MeasurementError, ValueError, IndexError) as error:
                self.outcome.failed[case.name] = str(error)
                return
        self.outcome.rounds[-1][case.name] = said["numbers"]
        self.outcome.versions[case.name] = said["versions"]

    def _folder(self, fixture: Fixture | None, scratch: Path) -> Path:
        if fixture is None:
            return scratch
        made = self.work / "fixtures" / fixture.name
        if not fixture.copied:
            return made
        copy = Path(shutil.copytree(made, scratch / "copy"))
        os.sync()  # so that no case is charged for writing the copy
        return copy


def launch(module: str, env: str, folder: Path, request: dict[str, object]) -> str:
    """Run one program of ``systems`` in ``folder`` and return what it printed."""
    asked = json.dumps({"folder": str(folder), **request})
    command = [str(interpreter(env)), "-m", f"bench.systems.{module}", asked]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=surroundings(env, folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{module}: no answer within {TIMEOUT:.0f} s") from error
    if done.returncode not in ((CRASHED, 0) if request.get("stage") == "prepare" else (0,)):
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        last = "\n      ".join(said[-LAST_LINES:])  # an exception may end with notes
        raise MeasurementError(f"{module}: exit {done.returncode}: {last}")
    return done.stdout


def surroundings(env: str, folder: Path) -> dict[str, str]:
    """The child's environment: nothing of the caller's that could switch an exporter or a log on.

    ``tests`` is on the path so that ``bench`` is a package there whatever else is installed, and
    for our own programs the clone's root, so that the clone is what is measured.
    """
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    own = env == OWN or PEERS[env].beside
    paths = [str(TESTS), *([str(TESTS.parent)] if own else [])]
    return {
        **kept,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_TMPDIR": tempfile.gettempdir(),  # its sockets' paths may have 107 characters
        "PYTHONPATH": os.pathsep.join(paths),
    }
