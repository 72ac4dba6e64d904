"""``python -m tests.bench``: measure, print a table, and on demand make the peers' environments."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import disk, envs, table
from .cases import Case, chosen
from .goals import GOALS
from .runner import Outcome, Runner
from .stats import Goal, collect, reach

REPS = 7
QUICK_REPS = 3


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure floors, this project and its peers, interleaved, in fresh processes.",
        epilog=f"Peers live under TAPPS_BENCH_ENVS (now {envs.home()}) and are all optional.",
    )
    made.add_argument(
        "--setup",
        nargs="*",
        metavar="PEER",
        choices=sorted(envs.PEERS),
        help=f"make these peers' environments (all: no name) and stop: {', '.join(envs.PEERS)}",
    )
    made.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a case, its beginning, or a section",
    )
    made.add_argument(
        "--reps", type=int, metavar="N", help=f"rounds (default {REPS}, with --quick {QUICK_REPS})"
    )
    made.add_argument(
        "--quick", action="store_true", help="small sizes: to try it out, not to quote"
    )
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything measured there too"
    )
    made.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="where to write (a disk; default: beside the peers)",
    )
    made.add_argument("--list", action="store_true", help="list sections and cases, and stop")
    return made


def set_up(names: Sequence[str]) -> int:
    """Make the peers' environments, and report which could not be made."""
    failures = 0
    for name in names or list(envs.PEERS):
        print(f"{name}: {' '.join(envs.PEERS[name].packages)}", flush=True)
        try:
            envs.set_up(envs.PEERS[name])
        except envs.SetupError as error:
            failures += 1
            print(f"{name}: not installed: {error}", file=sys.stderr)
    return 1 if failures else 0


def machine(work: Path, kind: str) -> dict[str, Any]:
    """Describe the machine, and how busy it was before."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "file_system": kind,
        "sync_us": round(disk.sync_us(work), 1),
    }


def measure(cases: Sequence[Case], options: argparse.Namespace) -> int:
    """Measure in a temporary folder, print the table, and write the JSON."""
    parent = options.work or envs.home() / "work"
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        about = machine(work, disk.check(work))
        runner = Runner(work, options.quick, tell=_tell)
        outcome = runner.run(cases, options.reps or (QUICK_REPS if options.quick else REPS))
    except disk.NotADiskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(work, ignore_errors=True)
    goals = [
        goal for goal in GOALS if {ref.case for ref in goal.refs()} <= {case.name for case in cases}
    ]
    report(about, cases, goals, outcome)
    if options.json:
        options.json.write_text(json.dumps(as_json(about, goals, outcome), indent=1) + "\n")
    return 1 if outcome.failed else 0


def report(
    about: dict[str, Any], cases: Sequence[Case], goals: Sequence[Goal], outcome: Outcome
) -> None:
    """The table on standard output."""
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print("median [least - most] of fresh processes, round robin")
    for line in (*table.measurements(cases, outcome), *table.goals(goals, outcome)):
        print(line)


def as_json(about: dict[str, Any], goals: Sequence[Goal], outcome: Outcome) -> dict[str, Any]:
    """Return everything, with each number of each round."""
    found = collect(outcome.rounds)
    return {
        "machine": about,
        "cases": {c: {m: dataclasses.asdict(s) for m, s in by.items()} for c, by in found.items()},
        "goals": [_goal_json(goal, outcome) for goal in goals],
        **dataclasses.asdict(outcome),
    }


def _goal_json(goal: Goal, outcome: Outcome) -> dict[str, Any]:
    found = reach(goal, outcome.rounds)
    return {
        "what": goal.what,
        "target": goal.target,
        "at_most": goal.at_most,
        "unit": goal.unit,
        "value": dataclasses.asdict(found) if found else None,
        "verdict": goal.verdict(found.median) if found else "not measured",
    }


def _tell(text: str) -> None:
    print(
        f"\r\033[K{text}" if sys.stderr.isatty() else text,
        end="" if sys.stderr.isatty() else "\n",
        file=sys.stderr,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    made = parser()
    options = made.parse_args(argv)
    if options.setup is not None:
        return set_up(options.setup)
    cases = chosen(options.only)
    if not cases:
        made.error(f"--only {' '.join(options.only)}: no case or section of that name; see --list")
    if options.list:
        print("\n".join(f"{case.section:<10}{case.name:<18}{case.what}" for case in cases))
        return 0
    return measure(cases, options)


if __name__ == "__main__":
    sys.exit(main())
