"""Programs of tests in processes of their own, which begin quickly.

:class:`Popen` and :func:`run` are those of :mod:`subprocess`. A Python program begins in a fork of
:mod:`prepared_interpreter`, which has imported its libraries: this takes a fifth of the time. A new
interpreter begins where a fork would be something else: with options of the interpreter, or with
another value of a variable that an interpreter or a library reads when it begins. A test of how a
program begins uses :mod:`subprocess`.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import tapps_otel
from prepared_interpreter import BEGUN, ENDED, MESSAGE, Program

__all__ = ["Popen", "run"]

# Children import what these tests import.
PACKAGES: Final = Path(tapps_otel.__file__).parents[1]
_ROOMS: Final = tuple(f"tapps_otel.{room}" for room in ("log", "past", "run", "report", "cli"))
_TRACING: Final = (
    "opentelemetry.sdk",
    "opentelemetry.exporter.otlp",
    *(f"tapps_otel.{room}" for room in ("otel", "audit")),
)
# An interpreter, a C library or an allocator reads these when the process begins.
_READ_AT_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GRPC_", "COVERAGE_")
_SET_BY_US: Final = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}

_EXECUTE_CHILD: Final = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_PIPES: Final = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_NOT_OF_FORKS: Final = {
    "executable": None, "preexec_fn": None, "pass_fds": (), "shell": False, "gid": None,
    "gids": None, "uid": None, "umask": -1, "process_group": -1,
}  # fmt: skip


class _Prepared:
    """An interpreter that has imported these packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "TAPPS_OTEL_", "PYTHON"))
        } | _SET_BY_US
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    Path(__file__).with_name("prepared_interpreter.py"),
                    str(theirs.fileno()),
                    PACKAGES,
                    *packages,
                ],
                env=self._environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        with self._control.makefile("rb") as file:
            self._read: set[str] = set(json.loads(file.readline()))
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.shutdown(socket.SHUT_RDWR)  # forks of the tests may have it open
        self._control.close()
        self._process.wait()

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a new interpreter would begin in this environment as this one has begun."""
        return all(
            environment.get(name) == self._environment.get(name)
            for name in self._read | environment.keys() | self._environment.keys()
            if name != "PYTHONPATH" and (name in self._read or name.startswith(_READ_AT_START))
        )

    def begin(self, program: Program, streams: Sequence[int]) -> tuple[int, socket.socket]:
        """Run a program. Returns its process id, and what tells its end."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"."], [theirs.fileno(), *streams])
        ours.sendall(json.dumps(asdict(program)).encode() + b"\n")
        kind, pid = MESSAGE.unpack(ours.recv(MESSAGE.size, socket.MSG_WAITALL))
        assert kind == BEGUN, "the program did not begin"
        return pid, ours


@cache
def _prepared(*, tracing: bool) -> _Prepared:
    return _Prepared((*_ROOMS, *_TRACING) if tracing else _ROOMS)


class Popen(subprocess.Popen[Any]):
    """A process, which may have begun in a fork of a prepared interpreter."""

    _end: socket.socket | None = None  # tells how such a fork ended

    def _execute_child(self, *arguments: Any) -> None:
        given = _EXECUTE_CHILD.bind(self, *arguments).arguments
        environment = dict(os.environ if given["env"] is None else given["env"])
        program = _program(given, environment)
        prepared = _prepared(tracing=_traces(environment)) if program else None
        if program is None or prepared is None or not prepared.suits(environment):
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        streams = enumerate(given[name] for name in ("p2cread", "c2pwrite", "errwrite"))
        self.pid, self._end = prepared.begin(
            program, [number if stream == -1 else stream for number, stream in streams]
        )
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in _PIPES))  # type: ignore[attr-defined]

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        if self._end is None:
            return super()._internal_poll(_deadstate)  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._end is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        flags = socket.MSG_DONTWAIT if wait_flags & os.WNOHANG else socket.MSG_WAITALL
        try:
            kind, status = MESSAGE.unpack(self._end.recv(MESSAGE.size, flags))
        except BlockingIOError:
            return 0, 0
        assert kind == ENDED
        self._end.close()
        return self.pid, status


def run(
    args: Sequence[str | os.PathLike[str]],
    *,
    input: str | bytes | None = None,  # noqa: A002 - its name in subprocess
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _program(given: dict[str, Any], environment: dict[str, str]) -> Program | None:
    """Return what is to be run, if a fork can be that process."""
    if any(given[name] != default for name, default in _NOT_OF_FORKS.items()):
        return None
    command = [os.fspath(word) for word in given["args"]]
    if command[0] != sys.executable:
        return None
    quiet = command[1:3] == ["-W", "ignore"]
    match command[3:] if quiet else command[1:]:
        case ["-m" | "-c" as kind, name, *arguments]:
            pass
        case [name, *arguments] if not name.startswith("-"):
            kind = "file"
        case _:
            return None
    folder = str(Path(given["cwd"] or "").absolute())
    return Program(kind, name, arguments, quiet, folder, environment, given["start_new_session"])


def _traces(environment: Mapping[str, str]) -> bool:
    """Whether a program in this environment imports OpenTelemetry when its first run begins."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    asked = any(name.startswith("OTEL_EXPORTER_OTLP") for name in environment)
    return exporter != "none" and (asked or exporter != "")
