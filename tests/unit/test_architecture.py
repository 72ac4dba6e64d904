"""The house rules: imports only go down, and one module each owns files, clocks and the terminal.

What imports tell is in the import-linter contracts of pyproject.toml. What they do not tell is
found here, by reading the source of every module.
"""

from __future__ import annotations

import ast
import graphlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tapps_otel"
MODULES = sorted(
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if "demo_sources" not in path.parts
)


def read_modules() -> Iterator[tuple[str, str]]:
    """Yield the path of each module inside the package, and its source."""
    for module in MODULES:
        yield module, (PACKAGE / module).read_text("utf-8")


# ---------------------------------------------------------------- what may stand where

# `os` has much that is not about files (getpid, urandom, environ, ...): that is free for all.
FILE_FUNCTIONS = {
    "os": """access chdir chflags chmod chown close closerange copy_file_range dup dup2 fchdir
        fchmod fchown fdatasync fdopen fpathconf fstat fstatvfs fsync ftruncate fwalk getxattr
        lchmod lchown link listdir listxattr lockf lseek lstat makedirs mkdir mkfifo mknod open
        pathconf posix_fadvise posix_fallocate pread preadv pwrite pwritev read readlink readv
        remove removedirs removexattr rename renames replace rmdir scandir sendfile setxattr splice
        stat statvfs symlink sync truncate unlink utime walk write writev""",
    "os.path": """exists getatime getctime getmtime getsize isdir isfile islink ismount lexists
        realpath samefile sameopenfile""",
    "io": "FileIO open open_code",
    "codecs": "open",
}
FILE_MODULES = {"fcntl", "fileinput", "glob", "mmap", "msvcrt", "shutil", "tempfile"}
FILE_NAMES = {f"{home}.{name}" for home, names in FILE_FUNCTIONS.items() for name in names.split()}
# Methods of pathlib.Path, known by their names alone. Some of these names mean other things too:
# they count where the call has no positional argument, as it has when the path is the receiver.
PATH_METHODS = {
    "hardlink_to", "is_symlink", "iterdir", "read_bytes", "read_text", "rglob", "symlink_to",
    "write_bytes", "write_text",
}  # fmt: skip
BARE_PATH_METHODS = {
    "exists", "is_dir", "is_file", "is_fifo", "lstat", "mkdir", "readlink", "rmdir", "stat",
    "touch", "unlink",
}  # fmt: skip

CLOCK_NAMES = {
    f"time.{name}{ns}"
    for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")
    for ns in ("", "_ns")
} | {
    "time.clock_gettime", "time.clock_gettime_ns", "datetime.datetime.now",
    "datetime.datetime.today", "datetime.datetime.utcnow", "datetime.date.today", "uuid.uuid1",
}  # fmt: skip
# These read the clock when they are given no time.
CLOCK_DEFAULTS = {"time.asctime", "time.ctime", "time.gmtime", "time.localtime"}

PRINTING_NAMES = {
    "print", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "pprint.pprint",
    "pprint.pp", "traceback.print_exc", "traceback.print_exception", "traceback.print_stack",
    "warnings.showwarning",
}  # fmt: skip

# ---------------------------------------------------------------- reading source


class Use(NamedTuple):
    """A name that the source uses, spelled as from the outside: `os.open`, `.read_text`."""

    line: int
    name: str
    bare: bool  # called without a positional argument


def uses(source: str) -> Iterator[Use]:
    """Every imported or built-in name in `source`, every method that is called, resolved."""
    tree = ast.parse(source)
    known = _imported(tree)
    own = _defined(tree)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Use(node.lineno, alias.name, bare=False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (Use(node.lineno, f"{node.module}.{a.name}", bare=False) for a in node.names)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            call = calls.get(id(node))
            bare = call is not None and not call.args
            if (name := _full_name(node, known, own)) is not None:
                yield Use(node.lineno, name, bare)
            elif isinstance(node, ast.Attribute) and call is not None:
                yield Use(node.lineno, f"{_receiver(node)}.{node.attr}", bare)


def _imported(tree: ast.Module) -> dict[str, str]:
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def _defined(tree: ast.Module) -> set[str]:
    """Names that the module binds itself at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        else:
            names.update(
                inner.id
                for inner in ast.walk(node)
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            )
    return names


def _full_name(node: ast.expr, known: dict[str, str], own: set[str]) -> str | None:
    if isinstance(node, ast.Attribute):
        home = _full_name(node.value, known, own)
        return None if home is None else f"{home}.{node.attr}"
    if isinstance(node, ast.Name):
        if node.id in known:
            return known[node.id]
        return node.id if node.id in {"open", "print"} and node.id not in own else None
    return None


def _receiver(node: ast.Attribute) -> str:
    """Last word of what a method is called on: `log.files` and `self._files` give `files`."""
    value = node.value.func if isinstance(node.value, ast.Call) else node.value
    last = getattr(value, "attr", None) or getattr(value, "id", "")
    return str(last).lstrip("_")


# ---------------------------------------------------------------- the rules


def touches_files(use: Use) -> bool:
    top, _, method = use.name.rpartition(".")
    if use.name.partition(".")[0] in FILE_MODULES or use.name in FILE_NAMES | {"open"}:
        return True
    if top == "files" or top.startswith("tapps_otel."):  # the seam itself, called as it should be
        return False
    return method in PATH_METHODS or (method in BARE_PATH_METHODS and use.bare)


def reads_clock(use: Use) -> bool:
    top, _, method = use.name.rpartition(".")
    return (
        use.name in CLOCK_NAMES
        or (use.name in CLOCK_DEFAULTS and use.bare)
        or (method == "time" and "loop" in top and use.bare)
    )


def prints(use: Use) -> bool:
    return use.name in PRINTING_NAMES


class Rule(NamedTuple):
    broken_by: Callable[[Use], bool]
    owners: tuple[str, ...]
    instead: str


RULES = {
    "files": Rule(
        touches_files,
        # the demo plays the user: work on files is what its steps do; `docs` reads pages that are
        # in the package, wherever it is installed
        ("log/files.py", "demo.py", "cli/docs.py"),
        "only log/files.py makes file system calls: give it a function for this, and call that",
    ),
    "clocks": Rule(reads_clock, ("clock.py",), "only clock.py reads clocks: call its functions"),
    "terminal": Rule(prints, ("cli/",), "only cli prints: return the text, or log it"),
}


def broken(rule: Rule, source: str) -> list[str]:
    return sorted({f"line {u.line}: {u.name}" for u in uses(source) if rule.broken_by(u)})


def test_one_room_owns_each_side_effect() -> None:
    found = [
        f"tapps_otel/{module}, line {use.line}: {use.name} ({rule.instead})"
        for module, source in read_modules()
        for use in uses(source)
        for rule in RULES.values()
        if rule.broken_by(use) and not module.startswith(rule.owners)
    ]

    assert found == []


def hidden_imports(source: str) -> list[str]:
    """Imports of this package or OpenTelemetry by a call, which import-linter does not see."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in {"import_module", "__import__"}:
            names = [str(getattr(argument, "value", "")) for argument in node.args]
            found += [
                f"line {node.lineno}: {name}"
                for name in names
                if name.partition(".")[0] in {"tapps_otel", "opentelemetry"}
            ]
    return found


def test_nothing_is_imported_behind_the_contracts_back() -> None:
    found = {
        module: places
        for module, source in read_modules()
        if module != "__init__.py"  # the front door: lazy, and checked by its own test
        and (places := hidden_imports(source))
    }

    assert not found, "import it by a statement (inside the function, if it is heavy)"


def unlisted(source: str) -> list[str]:
    """The public names of a module without ``__all__``."""
    defined = _defined(ast.parse(source))
    return [] if "__all__" in defined else sorted(n for n in defined if not n.startswith("_"))


def test_every_public_module_lists_its_names() -> None:
    found = {
        module: names
        for module, source in read_modules()
        if not any(part.startswith("_") for part in dotted(module).split("."))
        and (names := unlisted(source))
    }

    assert not found, "a public module lists its names in __all__"


# ---------------------------------------------------------------- circles

Graph = dict[str, set[str]]


def graph(sources: dict[str, str]) -> Graph:
    """Which of these modules imports which: at its top, inside functions, or for types alone.

    :param sources: by path inside the package
    """
    names = {dotted(path): path for path in sources}
    return {
        name: {found for found in _modules_in(sources[path], names) if found != name}
        for name, path in names.items()
    }


def dotted(path: str) -> str:
    parts = ["tapps_otel", *path.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _modules_in(source: str, names: Container[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found = whole if whole in names else node.module  # a module, or a name in one
                if found in names:
                    yield found


def circle(imports: Graph) -> list[str]:
    """Modules that import each other in turn, the first one again at the end; none: empty."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {
        module: (PACKAGE / module).read_text("utf-8")
        for module in MODULES
        if module.startswith(("instrumentation/", "otel/"))
    }

    assert not circle(graph(sources))


@pytest.mark.parametrize(
    "statement",
    [
        "from tapps_otel import names",
        "from tapps_otel.names import ATTR",
        "import tapps_otel.names",
        "def f():\n    from tapps_otel import names",
        "if TYPE_CHECKING:\n    from tapps_otel.names import ATTR",
    ],
)
def test_a_circle_is_found(statement: str) -> None:
    sources = {
        "__init__.py": "",
        "names.py": "from tapps_otel.otel import seam",
        "otel/__init__.py": "",
        "otel/seam.py": "from tapps_otel import clock",
        "clock.py": statement,
    }
    found = circle(graph(sources))

    assert set(found) == {"tapps_otel.clock", "tapps_otel.names", "tapps_otel.otel.seam"}


# ---------------------------------------------------------------- the contracts


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    run = "import sys; from importlinter.cli import lint_imports_command as c; c(sys.argv[1:])"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", run, "--no-cache"],
        cwd=folder,
        env=env | {"PYTHONPATH": str(folder), "COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_keep_the_contracts() -> None:
    done = lint_imports(ROOT)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A package with the modules of this one, all of them empty."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "tapps_otel"
    for module in MODULES:
        path = package / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return package


def write(toy: Path, module: str, source: str) -> None:
    folder = toy / module
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    path.write_text(source, "utf-8")


@pytest.mark.parametrize(
    ("module", "statement", "said"),
    [
        ("clock", "from tapps_otel import run", "clock is not allowed to import tapps_otel.run"),
        ("report", "import tapps_otel.run", "report is not allowed to import tapps_otel.run"),
        ("stray", "", "not listed as layers"),
        ("run", "from opentelemetry import trace", "not allowed to import opentelemetry"),
        ("report", "from rich.table import Table", "not allowed to import rich"),
        ("otel/process", "from tapps_otel.otel import transport", "not allowed to import"),
        ("otel/replay", "from tapps_otel.otel import capture", "not allowed to import"),
        ("otel/stray", "", "not listed as layers"),
        ("otel/seam", "from opentelemetry import trace", "not allowed to import opentelemetry"),
        ("run/policy", "from tapps_otel.run import step", "not allowed to import"),
        ("run/stray", "", "not listed as layers"),
        ("run/codecs/native", "from tapps_otel.run.codecs import union", "not allowed to import"),
        ("instrumentation/spec", "from tapps_otel.instrumentation import registry", "not allowed"),
        (
            "instrumentation/tapps_agents/states",
            "from tapps_otel.instrumentation.tapps_agents import hooks",
            "not allowed to import",
        ),
    ],
)
@pytest.mark.exhaustive
def test_a_broken_contract_is_seen(toy: Path, module: str, statement: str, said: str) -> None:
    write(toy, module, statement)
    done = lint_imports(toy.parent)

    assert done.returncode == 1
    assert said in done.stdout


def test_allowed_imports_pass(toy: Path) -> None:
    write(toy, "otel", "import opentelemetry.trace, tapps_otel.past")
    write(toy, "cli", "import rich, typer, tapps_otel.run")
    done = lint_imports(toy.parent)

    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- the rules themselves


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("files", "open('x')"),
        ("files", "import os\nos.open('x', 0)"),
        ("files", "import os as _os\n_os.fdatasync(3)"),
        ("files", "from os import write"),
        ("files", "import os\nseam = dict(read=os.pread)"),
        ("files", "from os.path import exists"),
        ("files", "import os\nos.path.getsize(p)"),
        ("files", "from fcntl import flock"),
        ("files", "import shutil"),
        ("files", "from pathlib import Path\nPath('x').read_text()"),
        ("files", "def f(p): return (p / 'x').write_bytes(b'')"),
        ("files", "def f(p): p.mkdir(parents=True, exist_ok=True)"),
        ("files", "def f(p): return [q for q in p.parent.iterdir() if q.is_file()]"),
        ("clocks", "import time\ntime.monotonic()"),
        ("clocks", "from time import time_ns as now"),
        ("clocks", "from dataclasses import field\nimport time\nx = field(default=time.time)"),
        ("clocks", "from datetime import UTC, datetime\ndatetime.now(UTC)"),
        ("clocks", "import datetime as dt\ndt.datetime.now(dt.UTC)"),
        ("clocks", "import time\ntime.gmtime()"),
        ("clocks", "import asyncio\nasyncio.get_running_loop().time()"),
        ("terminal", "print('x')"),
        ("terminal", "say = print"),
        ("terminal", "import sys\nsys.stderr.write('x')"),
        ("terminal", "import traceback\ntraceback.print_exc()"),
    ],
)
def test_a_broken_rule_is_seen(rule: str, source: str) -> None:
    assert broken(RULES[rule], source)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.getpid(); os.environ.get('HOME'); os.fspath(p); os.path.join('a', 'b')",
        "from pathlib import Path\nPath('x').with_suffix('.y').name",
        "from tapps_otel.log import files\nfiles.open(p); files.stat(); files.read_bytes(p)",
        "class Writer:\n    def open(self): return self._files.open(self.path)",
        "def open(): ...\ndef f(): return open()",
        "def f(store, run): return store.exists(run), 'a'.replace('a', 'b')",
        "import time\ntime.sleep(1); time.gmtime(0)",
        "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC).time()",
        "from tapps_otel import clock\nclock.time_ns(); clock.monotonic_ns()",
        "import logging\nlogging.getLogger(__name__).error('x')",
    ],
)
def test_what_is_allowed_passes(source: str) -> None:
    assert [broken(rule, source) for rule in RULES.values()] == [[], [], []]
