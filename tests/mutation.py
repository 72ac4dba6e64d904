"""``python tests/mutation.py [NUMBER] [--seed N]``: find out which mistakes the fast tests miss.

mutmut makes mutants of ``log``, ``past`` and ``run``: copies of a function with one small mistake
each. A random sample of them is tested, and the survivors are printed with their differences. A
survivor needs a new test, unless it behaves like the original. ``[tool.mutmut]`` in pyproject.toml
says what is mutated and which tests run; ``mutmut browse`` shows all results afterwards.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

MUTANTS = Path("mutants")  # mutmut's folder
NO_SUCH_MUTANT = "none"


def mutmut(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], capture_output=True, text=True, check=False
    )


def generate() -> list[str]:
    """Make all mutants and find the tests that reach them; mutmut has no command for that alone."""
    done = mutmut("run", NO_SUCH_MUTANT)
    names = [name for path in MUTANTS.rglob("*.meta") for name in results(path)]
    if not names or "nothing matches" not in done.stderr + done.stdout:
        sys.exit(f"mutmut made no mutants:\n{done.stdout}{done.stderr}")
    return sorted(names)


def results(path: Path) -> dict[str, int | None]:
    """Read the exit codes of the tests of each mutant of a file."""
    found: dict[str, int | None] = json.loads(path.read_text("utf-8"))["exit_code_by_key"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("number", type=int, nargs="?", default=200, help="size of the sample")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    names = generate()
    sample = random.Random(options.seed).sample(names, min(options.number, len(names)))
    print(f"testing {len(sample)} of {len(names)} mutants (seed {options.seed})", flush=True)
    done = mutmut("run", *sample)
    if done.returncode:
        sys.exit(f"mutmut failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    status = dict(
        line.strip().rsplit(": ", 1) for line in mutmut("results", "--all", "1").stdout.splitlines()
    )
    survivors = [name for name in sample if status[name] in {"survived", "no tests"}]
    for name in survivors:
        print(mutmut("show", name).stdout)
    print(
        *(f"{count} {what}" for what, count in Counter(map(status.get, sample)).items()), sep=", "
    )
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
