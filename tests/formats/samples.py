"""``python -m tests.formats.samples``: write logs of today's version, to be kept for ever.

Every release gets a folder of samples, named after its version: the program, the logs that it left
when it died, and what was read from them and done on a resume. A sample that exists is never
written again: `tests/unit/log/test_formats.py` finds what later versions do differently.

The logs name the folder and the host where they were made: make them in a folder like
`/tmp/project`, with a copy of the package in another, and copy the result here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import tapps_otel
from tapps_otel import history, verify
from tapps_otel.past.fold import StepHistory
from tapps_otel.run.resolving import repair
from tapps_otel.version import __version__

HERE: Final = Path(__file__).parent
RUNS: Final = (
    "completed", "failed", "interrupted", "parallel", "parent", "blobs", "repaired", "executor",
)  # fmt: skip
CALLED: Final = "called"  # the run that `parent` calls
LOGS: Final = Path("logs")


def samples() -> list[Path]:
    """Return the samples, one of each release."""
    return sorted(path.parent for path in HERE.glob("*/expected.json"))


def call(folder: Path, run: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Call the program of a sample, with a copy of its logs."""
    package = os.environ.get("PYTHONPATH", str(Path(tapps_otel.__file__).parents[1]))
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": package, "TAPPS_OTEL_LOG_DIR": str(LOGS)}
    return subprocess.run(
        [sys.executable, "flow.py", run],
        cwd=folder,
        env=env | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def describe(logs: Path, run: str) -> dict[str, Any]:
    """Describe what is read from a run's log."""
    found, checked = history(run, log_dir=logs), verify(run, log_dir=logs)
    return {
        "status": found.status,
        "executions": [one.status for one in found.executions],
        "trace_id": found.trace_id,
        "steps": [_describe_step(one) for one in found.steps],
        "repairs": found.repairs,
        "verify": [checked.ok, checked.log.seq, checked.log.sha, list(checked.notes)],
    }


def _describe_step(step: StepHistory) -> dict[str, Any]:
    return {
        "step_id": step.step_id,
        "status": step.status,
        "agent": step.agent,
        "result": None if step.result is None else json.loads(step.result),
        "attempts": [
            [one.number, one.status, one.start_seq, one.end_seq, one.error and one.error["message"]]
            for one in step.attempts
        ],
    }


def resumed(folder: Path, run: str) -> dict[str, Any]:
    """Call the program again, and describe what it did."""
    effects = folder / "ran.txt"
    effects.unlink(missing_ok=True)
    done = call(folder, run)
    return {
        "code": done.returncode,
        "out": done.stdout,
        "ran": sorted(effects.read_text("utf-8").splitlines()) if effects.exists() else [],
        "status": history(run, log_dir=folder / LOGS).status,
    }


def make(folder: Path) -> None:
    """Write the sample of this version into a new folder."""
    folder.mkdir()
    shutil.copy(HERE / "flow.py", folder)
    for run in RUNS:
        call(folder, run, FIRST="1")
    with (folder / LOGS / "repaired.jsonl").open("ab") as file:
        file.write(b"these bytes are damage\n")
    repair("repaired", log_dir=folder / LOGS)
    for path in (folder / "ran.txt", *(folder / LOGS).glob("*.lease")):
        path.unlink()
    expected: dict[str, Any] = {"read": {}, "resumed": {}}
    for run in (*RUNS, CALLED):
        expected["read"][run] = describe(folder / LOGS, run)
    with tempfile.TemporaryDirectory() as copy:
        again = shutil.copytree(folder, Path(copy, "sample"))
        for run in RUNS:
            expected["resumed"][run] = resumed(again, run)
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (folder / "expected.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    make(HERE / __version__ if len(sys.argv) < 2 else Path(sys.argv[1]))
