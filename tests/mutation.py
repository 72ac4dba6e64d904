"""``python tests/mutation.py [NUMBER] [--seed N]``: find out which mistakes the fast tests miss.

mutmut makes mutants of ``log``, ``past`` and ``run``: copies of a function with one small mistake
each. A random sample of them is checked as CI would check it: by mypy, and what that accepts by
the fast tests. The survivors are printed with their differences. A survivor needs a new test,
unless it behaves like the original. ``[tool.mutmut]`` in pyproject.toml says what is mutated and
which tests run; ``mutmut browse`` shows all results afterwards.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import subprocess
import sys
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

MUTANTS = Path("mutants")  # mutmut's folder
NO_SUCH_MUTANT = "none"
CAUGHT = {"killed", "timeout", "suspicious", "segfault"}
# What mypy finds in comments of mutmut; and that a condition ends in `or True`, as it writes it.
IGNORED = {"ignore-without-code", "redundant-expr", "unused-ignore"}


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


def untested(names: list[str]) -> list[str]:
    """Return those of these mutants that have no result."""
    found: dict[str, int | None] = {}
    for path in MUTANTS.rglob("*.meta"):
        found |= results(path)
    return [name for name in names if found[name] is None]


def rejected_by_types() -> Iterator[str]:
    """Yield the names of the mutants that mypy rejects.

    mutmut has an option for it, which fails if the copies of a function are an error together.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--output=json", "tapps_otel"],
        capture_output=True, text=True, check=False, cwd=MUTANTS,
    )  # fmt: skip
    if done.stderr:
        sys.exit(f"mypy failed:\n{done.stderr}")
    errors: dict[str, list[tuple[int, str]]] = defaultdict(list)  # by file
    for line in done.stdout.splitlines():
        one = json.loads(line)
        if one["severity"] == "error" and one["code"] not in IGNORED:
            errors[one["file"]].append((one["line"], re.sub(r"\d+", "", one["message"])))
    for file, found in errors.items():
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        messages = by_function(MUTANTS / file, found)
        for name, own in messages.items():
            original = messages.get(re.sub(r"__mutmut_\d+$", "__mutmut_orig", name), set())
            if not own <= original:  # what is wrong in every copy comes of there being several
                yield f"{module}.{name}"


def by_function(path: Path, errors: list[tuple[int, str]]) -> dict[str, set[str]]:
    """Group the messages of a file by the mutant that they are about."""
    functions = sorted(
        (one.lineno, one.end_lineno or 0, one.name)
        for one in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and "__mutmut_" in one.name
    )
    found: dict[str, set[str]] = defaultdict(set)
    for line, message in errors:
        place = bisect(functions, line, key=lambda one: one[0]) - 1
        if place >= 0 and line <= functions[place][1]:
            found[functions[place][2]].add(message)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("number", type=int, nargs="?", default=200, help="size of the sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests-alone", action="store_true", help="test what mypy rejects, too")
    options = parser.parse_args()

    names = generate()
    sample = random.Random(options.seed).sample(names, min(options.number, len(names)))
    rejected = set() if options.tests_alone else set(rejected_by_types()).intersection(sample)
    tested = [name for name in sample if name not in rejected]
    print(f"testing {len(tested)} of a sample of {len(sample)} of {len(names)} mutants (seed "
          f"{options.seed}): mypy rejects the others", flush=True)  # fmt: skip
    done = mutmut("run", *tested)
    if done.returncode:  # a mutant has ended mutmut itself: those that are left, one by one
        print(done.stderr[-3000:], file=sys.stderr)
        for name in untested(tested):
            mutmut("run", name)

    status = dict(
        line.strip().rsplit(": ", 1) for line in mutmut("results", "--all", "1").stdout.splitlines()
    )
    survivors = [name for name in tested if status[name] not in CAUGHT]
    for name in survivors:
        print(mutmut("show", name).stdout)
    counts = Counter(status[name] for name in tested) + Counter(rejected=len(rejected))
    print(*(f"{count} {what}" for what, count in counts.items()), sep=", ")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
