"""The demo: a workflow of real work on files, which is killed and resumed.

:func:`survey` reads a folder of Python sources and writes a report about them. It is an ordinary
workflow and has no code for being killed. :class:`Demo` runs it from the command line in a child
process, kills that child in the middle of a step, and resumes the run in another.
"""

from __future__ import annotations

import ast
import asyncio
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import tokenize
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel import bind, clock, current_run, settings, step, workflow
from tapps_otel.audit.verify import verify
from tapps_otel.engines import local
from tapps_otel.errors import TappsError
from tapps_otel.log.follower import follow
from tapps_otel.log.home import home_of
from tapps_otel.log.store import Store
from tapps_otel.names import ATTR, new_workflow_id
from tapps_otel.run.queries import events, history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.audit.verify import VerifyReport
    from tapps_otel.log.event import Event
    from tapps_otel.past.fold import RunHistory

__all__ = ["SOURCES", "Demo", "DemoError", "Outcome", "survey"]

SOURCES: Final = Path(__file__).with_name("demo_sources")
_PACE: Final = 0.02  # seconds a file: quick work is slowed down so that it can be watched
_SHARES: Final = (1, 2, 3)  # of the comparisons: three threads that finish one after the other
_KEYWORDS: Final = frozenset(["self", "cls", "return", "for", "in", "if", "else", "not", "def"])


# ---------------------------------------------------------------- the workflow


@dataclass(frozen=True)
class Source:
    """A file to read."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Function:
    """A function in a file."""

    where: str
    lines: int
    documented: bool


@dataclass(frozen=True)
class Pair:
    """Two files, and how alike they are (0 to 1)."""

    names: list[str]
    ratio: float


@step(action="read")
def scan(folder: str) -> list[Source]:
    """List the sources, each with the digest of its content."""
    found: list[Source] = []
    for path in sorted(Path(folder).glob("*.py")):
        data = path.read_bytes()
        found.append(Source(path.name, sha256(data).hexdigest(), len(data)))
        time.sleep(_PACE)
    return found


@step(action="parse")
def parse(folder: str, sources: list[Source]) -> list[Function]:
    """Parse every file and find its functions."""
    found: list[Function] = []
    for source in sources:
        tree = ast.parse(_text(Path(folder, source.name)))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                documented = ast.get_docstring(node) is not None
                found.append(Function(f"{source.name}:{node.name}", lines, documented))
        time.sleep(_PACE)
    return found


@step(action="count")
async def count_lines(folder: str, sources: list[Source]) -> dict[str, int]:
    """Count lines of code, comment lines and empty lines in all files."""
    counted: Counter[str] = Counter()
    for source in sources:
        for line in _text(Path(folder, source.name)).splitlines():
            text = line.strip()
            counted["comment" if text.startswith("#") else "code" if text else "empty"] += 1
        await asyncio.sleep(_PACE)
    return dict(counted)


@step(action="rank")
async def longest_functions(functions: list[Function]) -> list[Function]:
    """Find the five longest functions."""
    await asyncio.sleep(5 * _PACE)
    return sorted(functions, key=lambda one: -one.lines)[:5]


@step(action="rank")
async def rank_names(folder: str, sources: list[Source]) -> list[tuple[str, int]]:
    """Find the ten names that are used most."""
    counted: Counter[str] = Counter()
    for source in sources:
        counted.update(
            word
            for word in _words(Path(folder, source.name))
            if word.isidentifier() and word not in _KEYWORDS
        )
        await asyncio.sleep(_PACE / 2)
    return counted.most_common(10)


@step(action="check")
async def find_undocumented(functions: list[Function]) -> list[str]:
    """Find public functions without a docstring."""
    await asyncio.sleep(8 * _PACE)
    return [
        one.where
        for one in functions
        if not one.documented and not one.where.partition(":")[2].startswith("_")
    ]


@step(action="compare")
async def compare(folder: str, pairs: list[tuple[str, str]]) -> list[Pair]:
    """Compare the files of each pair word by word, in a thread: it does not await."""
    return await asyncio.to_thread(_ratios, folder, pairs)


def _ratios(folder: str, pairs: list[tuple[str, str]]) -> list[Pair]:
    words = {name: _words(Path(folder, name)) for pair in pairs for name in pair}
    found: list[Pair] = []
    for one, other in pairs:
        ratio = SequenceMatcher(None, words[one], words[other], autojunk=False).ratio()
        found.append(Pair([one, other], round(ratio, 3)))
        time.sleep(1.5 * _PACE)
    return found


@step(action="group")
def group(pairs: list[Pair]) -> list[list[str]]:
    """Group files that are more alike than most."""
    limit = sorted(pair.ratio for pair in pairs)[-max(1, len(pairs) // 10)]
    groups: list[set[str]] = []
    for pair in pairs:
        if pair.ratio >= limit:
            touched = [one for one in groups if one & set(pair.names)]
            groups = [one for one in groups if one not in touched]
            groups.append(set(pair.names).union(*touched))
    return sorted(sorted(one) for one in groups)


@workflow
async def survey(folder: str, report: str, engine: str | None = None) -> dict[str, Any]:
    """Read the sources in ``folder`` and write a report about them.

    :param engine: compares them; by default, threads of this process
    """
    sources = scan(folder)
    functions = parse(folder, sources)
    lines, longest, names, undocumented = await asyncio.gather(
        count_lines(folder, sources),
        longest_functions(functions),
        rank_names(folder, sources),
        find_undocumented(functions),
    )
    if engine is None:
        shares = await asyncio.gather(*(compare(folder, share) for share in _shares(sources)))
    else:
        shares = await _compare_in_workers(engine, folder, _shares(sources))
    pairs = [pair for share in shares for pair in share]
    alike = group(pairs)

    text = _render(sources, functions, lines, longest, names, undocumented, pairs, alike)
    # A step without a decorator: its artifact, a file, is in the log with its digest.
    with current_run().begin("render", inputs={"sha256": _digest(text), "to": report}) as attempt:
        if not attempt.done:
            _write(Path(report), text)
            attempt.finish(len(text), artifacts=[Path(report)])
    return {
        "files": len(sources),
        "functions": len(functions),
        "lines": lines,
        "most_used": names[0][0],
        "report": report,
    }


async def _compare_in_workers(
    engine: str, folder: str, shares: list[list[tuple[str, str]]]
) -> list[Any]:
    with bind(local.start(engine)) as workers:
        futures = [workers.submit(compare, folder, share) for share in shares]
        return await asyncio.gather(*map(asyncio.wrap_future, futures))


def _text(path: Path) -> str:
    return path.read_text("utf-8")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _words(path: Path) -> list[str]:
    source = io.BytesIO(path.read_bytes())
    return [token.string for token in tokenize.tokenize(source.readline) if token.string.strip()]


def _shares(sources: list[Source]) -> list[list[tuple[str, str]]]:
    """Distribute every pair of files over unequal shares."""
    pairs = list(itertools.combinations((one.name for one in sources), 2))
    deal = [at for at, times in enumerate(_SHARES) for _ in range(times)]
    shares: list[list[tuple[str, str]]] = [[] for _ in _SHARES]
    for at, pair in enumerate(pairs):
        shares[deal[at % len(deal)]].append(pair)
    return shares


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _render(  # noqa: PLR0917 - one for each part of the report
    sources: list[Source],
    functions: list[Function],
    lines: dict[str, int],
    longest: list[Function],
    names: list[tuple[str, int]],
    undocumented: list[str],
    pairs: list[Pair],
    alike: list[list[str]],
) -> str:
    closest = sorted(pairs, key=lambda pair: -pair.ratio)[:5]
    size = sum(one.bytes for one in sources)
    kinds = ", ".join(f"{number} lines {kind}" for kind, number in sorted(lines.items()))
    chapters = {
        "Longest functions": [f"{one.where}: {one.lines} lines" for one in longest],
        "Names used most": [f"{name}: {number}" for name, number in names],
        f"Public functions without a docstring: {len(undocumented)}": undocumented,
        "Most alike": [f"{' and '.join(one.names)}: {one.ratio:.0%}" for one in closest],
        "Groups": [", ".join(one) for one in alike],
    }
    parts = ["# A survey of Python sources\n"]
    parts.append(f"{len(sources)} files, {size} bytes, {len(functions)} functions; {kinds}\n")
    for title, points in chapters.items():
        parts += [f"## {title}\n", *(f"- {point}" for point in points), ""]
    return "\n".join(parts)


# ---------------------------------------------------------------- killing and resuming it


class DemoError(TappsError):
    """A child process of the demo failed."""


class Outcome(NamedTuple):
    """What is in the log in the end.

    :ivar completed: steps that the first process completed
    :ivar interrupted: steps that were in progress when it was killed
    :ivar repeated: completed steps that ran again all the same: there must be none
    :ivar last_line: of what the second process wrote to standard error
    :ivar workers: of steps that workers of an engine executed: host and process
    """

    history: RunHistory
    verified: VerifyReport
    completed: list[str]
    interrupted: list[str]
    repeated: list[str]
    report: Path
    log: Path
    last_line: str
    workers: dict[str, str]


class Demo:
    """One demonstration, in a folder of logs.

    With a store of runs, the run is resumed in another folder, as on another machine.

    :param engine: whose workers execute some of the steps; one of them is killed first
    :ivar log_dir: where the run is executed
    :ivar elsewhere: where it is resumed, if that is another folder
    :ivar workflow_id: of its run
    :ivar interrupted: steps that were in progress when it was killed
    :ivar killed_worker: process id of the worker that was killed
    """

    def __init__(self, log_dir: Path, engine: str | None = None) -> None:
        now = clock.timestamp(clock.time_ns())
        self.log_dir = log_dir
        has_store = settings.current().store is not None
        self.elsewhere = log_dir.with_name(f"{log_dir.name}-elsewhere") if has_store else None
        self.workflow_id = new_workflow_id("survey", now)
        self.report = log_dir / f"{self.workflow_id}.md"
        self._path = Store(log_dir).log_path(self.workflow_id)
        self._seen = 0
        self._completed: dict[str, None] = {}
        self._open: dict[str, None] = {}
        self.interrupted: list[str] = []
        self.killed_worker: int | None = None
        self._engine, self._last_line = engine, ""

    def start_and_kill(self) -> Iterator[Event]:
        """Start the workflow, and yield its events until it is killed in the middle of a step.

        :raises DemoError: it ended before that
        """
        inputs = {"folder": str(SOURCES), "report": str(self.report)}
        if self._engine is not None:
            inputs["engine"] = self._engine
        program = "tapps_otel.demo:survey"
        child = self._start("run", program, "--id", self.workflow_id, "-i", json.dumps(inputs))
        try:
            for event in self._events(child):
                self._kill_worker(event)
                yield event
                if self._is_time_to_kill(event):
                    self._await_store(event, child)
                    child.kill()
        except BaseException:  # the caller stopped watching
            child.kill()
            raise
        finally:
            written = _end(child)
        if child.returncode != -9:
            raise DemoError(f"the workflow ended before it could be killed\n{written}")
        self.interrupted = list(self._open)

    def _await_store(self, event: Event, child: subprocess.Popen[bytes]) -> None:
        """Wait until the store has an event, if there is one: until then the step has not ended."""
        home = home_of(settings.current())
        while home is not None and child.poll() is None:
            with home.copies(self.workflow_id) as copies:
                if copies[0].head.seq >= event.seq:
                    return
            time.sleep(_PACE)

    def _kill_worker(self, event: Event) -> None:
        """Kill the first worker that has completed a step: others of its pool are in progress."""
        if self.killed_worker is None and event.event_type == "step_finish":
            pid = _or_empty(event.attributes).get(ATTR.WORKER_PID)
            if isinstance(pid, int):
                os.kill(pid, signal.SIGKILL)
                self.killed_worker = pid

    def _is_time_to_kill(self, event: Event) -> bool:
        """Whether one of three parallel steps has just ended, so that others are in progress.

        In workers, one was killed before: then it is when what that interrupted has begun again,
        or, where the engine repeats it by itself, when another one has ended.
        """
        if event.step != "compare" or not self._open:
            return False
        if self._engine is None:
            return event.event_type == "step_finish"
        if _or_empty(event.attributes).get(ATTR.WORKER_PID) == self.killed_worker:
            return False
        again = event.event_type == "step_start" and event.attempt != 1
        return again or event.event_type == "step_finish"

    def resume(self) -> Iterator[Event]:
        """Resume the run in another process, and yield its events to the end.

        :raises DemoError: it did not complete
        """
        if self.elsewhere is not None:
            self.log_dir = self.elsewhere
            self._path = Store(self.log_dir).log_path(self.workflow_id)
        child = self._start("resume", self.workflow_id)
        try:
            yield from self._events(child)
        except BaseException:
            child.kill()
            raise
        finally:
            written = _end(child)
        self._last_line = written.strip().rpartition("\n")[2]
        if child.returncode != 0:
            raise DemoError(f"resume ended with exit code {child.returncode}\n{written}")

    def outcome(self) -> Outcome:
        """Read the outcome from the log."""
        found = history(self.workflow_id, log_dir=self.log_dir)
        completed = [one for one in self._completed if self._completed_in_first(found, one)]
        repeated = [
            step_id
            for step_id in completed
            if any(attempt.execution > 1 for attempt in found.by_id[step_id].attempts)
        ]
        return Outcome(
            history=found,
            verified=verify(self.workflow_id, log_dir=self.log_dir),
            completed=completed,
            interrupted=self.interrupted,
            repeated=repeated,
            report=self.report,
            log=self._path,
            last_line=self._last_line,
            workers=self._workers(),
        )

    def _workers(self) -> dict[str, str]:
        found = {}
        for event in events(self.workflow_id, log_dir=self.log_dir):
            attributes = event.attributes or {}
            if event.event_type == "step_finish" and ATTR.WORKER_PID in attributes:
                place = f"{attributes[ATTR.WORKER_HOST]}, process {attributes[ATTR.WORKER_PID]}"
                found[str(event.step_id)] = place
        return found

    @staticmethod
    def _completed_in_first(found: RunHistory, step_id: str) -> bool:
        attempts = found.by_id[step_id].attempts
        return any(one.execution == 1 and one.status == "completed" for one in attempts)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        # -P: a folder of this package's name in the working directory must not be imported.
        command = [sys.executable, "-P", "-m", "tapps_otel", *arguments]
        return subprocess.Popen(
            [*command, "--quiet", "--log-dir", str(self.log_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != _SWITCH},
        )

    def _events(self, child: subprocess.Popen[bytes]) -> Iterator[Event]:
        """Yield the events that the child writes to the log, until it has ended."""
        while not self._path.exists():
            if child.poll() is not None:
                return
            time.sleep(_PACE)
        for event in follow(
            self._path, self.workflow_id, done=lambda: child.poll() is not None, poll=_PACE
        ):
            self._note(event)
            if event.seq > self._seen:
                self._seen = event.seq
                yield event

    def _note(self, event: Event) -> None:
        step_id = str(event.step_id)
        if event.event_type == "step_start":
            self._open[step_id] = None
        elif event.event_type == "step_finish":
            self._open.pop(step_id, None)
            self._completed[step_id] = None
        elif event.event_type in {"step_fail", "step_skip"}:
            self._open.pop(step_id, None)


def _or_empty(attributes: Any) -> dict[str, Any]:
    return attributes if isinstance(attributes, dict) else {}


_SWITCH: Final = "TAPPS_OTEL_ENABLED"  # a run that is not logged cannot be resumed


def _end(child: subprocess.Popen[bytes]) -> str:
    """Wait until the child has ended, kill it if it does not, and return what it wrote."""
    if child.poll() is None:
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
    _, written = child.communicate()
    return written.decode(errors="replace")
