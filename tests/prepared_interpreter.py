"""A program that has imported what tests' programs need, and runs each of them in a fork of itself.

Most of the time of a short program is its imports. :mod:`programs` starts this one, and tells it
what to run over a socket::

    python prepared_interpreter.py SOCKET FOLDER PACKAGE...

The packages are in the folder.

A program that it runs has its own arguments, folder, environment, streams and ``__main__``. It ends
as any other does: with its exit handlers, the end of the interpreter, an exit code or a signal.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Final, Literal, TextIO

Kind = Literal["file", "-m", "-c"]
MESSAGE: Final = struct.Struct("=ci")  # of a program: b"begun" or b"ended", and its pid or status
BEGUN: Final = b"b"
ENDED: Final = b"e"


@dataclass(frozen=True)
class Program:
    """What is to be run.

    :ivar kind: what ``name`` is: a file, a module (``-m``) or code (``-c``)
    :ivar quiet: whether it shows no warnings (``-W ignore``)
    :ivar session: whether it gets a session of its own
    """

    kind: Kind
    name: str
    arguments: list[str]
    quiet: bool
    folder: str
    environment: dict[str, str]
    session: bool


# ---------------------------------------------------------------- the packages


class _Noting(os._Environ[str]):
    """The environment, which notes what is read from it."""

    names: set[str] = set()  # noqa: RUF012 - an environment has no initializer of ours

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)


def _import(packages: list[str]) -> set[str]:
    """Import packages with all their modules, and return the variables that this read."""
    os.environ.__class__ = _Noting
    none_written, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in packages:
            for name in _modules(package):
                with suppress(ImportError):  # of what only some programs have
                    importlib.import_module(name)
    os.environ.__class__ = os._Environ
    sys.dont_write_bytecode = none_written
    return _Noting.names


def _modules(package: str) -> Iterator[str]:
    yield package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith(".__main__"):
            yield module.name


# ---------------------------------------------------------------- the server


def _serve(control: socket.socket) -> tuple[int, list[int]]:
    """Fork for each program, and tell how it ended. Returns in forks only: what they got."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    told: dict[int, int] = {}  # by process id: whom to tell
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(told)
        if control.fileno() in ready:
            _, received, _, _ = socket.recv_fds(control, 1, 4)
            if not received:  # the tests have ended
                os._exit(0)
            teller, *streams = received
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                control.detach()
                return teller, streams
            told[pid] = teller
            for stream in streams:
                os.close(stream)


def _tell_ends(told: dict[int, int]) -> None:
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        teller = told.pop(pid)
        with suppress(OSError):  # no test waits for it any more
            os.write(teller, MESSAGE.pack(ENDED, status))
        os.close(teller)


# ---------------------------------------------------------------- a fork


def _begin(teller: int, streams: list[int]) -> Callable[[], object]:
    """Make this fork the process that was asked for, and return the program."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin = sys.__stdin__ = _opened(0, sys.stdin)  # type: ignore[misc, assignment]
    sys.stdout = sys.__stdout__ = _opened(1, sys.stdout)  # type: ignore[misc, assignment]
    sys.stderr = sys.__stderr__ = _opened(2, sys.stderr)  # type: ignore[misc, assignment]
    with open(os.dup(teller), "rb") as file:  # noqa: PTH123
        program = Program(**json.loads(file.readline()))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if program.session:
        os.setsid()
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    time.tzset()
    if program.quiet:
        warnings.simplefilter("ignore")
    run = _as_main(program)
    gc.enable()
    os.write(teller, MESSAGE.pack(BEGUN, os.getpid()))
    os.closerange(3, max(int(path.name) for path in Path("/dev/fd").iterdir()) + 1)
    return run


def _opened(number: int, before: TextIO) -> TextIO:
    """Open a stream as an interpreter without buffers does, with the encoding of the one before."""
    mode = "w" if number else "r"
    raw = io.FileIO(number, mode, closefd=False)
    raw.name = before.name
    opened = io.TextIOWrapper(
        raw if number else io.BufferedReader(raw),
        before.encoding,
        before.errors,
        newline="\n" if number else None,
        write_through=bool(number),
    )
    opened.mode = mode  # type: ignore[misc]
    return opened


def _as_main(program: Program) -> Callable[[], object]:
    """Make the program ``__main__``, as the interpreter does."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=__builtins__, __annotations__={})
    sys.modules["__main__"] = main
    sys.argv = [program.name if program.kind == "file" else program.kind, *program.arguments]
    if program.kind == "file":
        first = str(Path(program.name).resolve().parent)
    else:
        first = str(Path.cwd()) if program.kind == "-m" else ""
    given = program.environment.get("PYTHONPATH")
    sys.path[:] = [first, *(given.split(os.pathsep) if given else ()), *sys.path]
    if "multiprocessing.process" in sys.modules:  # where processes that it spawns begin
        sys.modules["multiprocessing.process"].ORIGINAL_DIR = str(Path.cwd())  # type: ignore[attr-defined]
    if program.kind == "-m":
        return lambda: runpy._run_module_as_main(program.name)  # type: ignore[attr-defined]
    if program.kind == "-c":
        return lambda: exec(compile(program.name, "<string>", "exec"), main.__dict__)
    path = os.path.abspath(program.name)  # noqa: PTH100
    loader = SourceFileLoader("__main__", path)
    main.__file__ = path
    main.__loader__ = loader
    main.__dict__["__cached__"] = None
    text = Path(path).read_bytes()
    return lambda: exec(compile(text, path, "exec"), main.__dict__)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the tests, and for the programs
    _control = socket.socket(fileno=int(sys.argv[1]))
    sys.path[0] = sys.argv[2]
    _names = _import(sys.argv[3:])
    importlib.import_module("tapps_otel.cli.app")._command()  # which is kept
    del sys.path[0]
    _control.sendall(json.dumps(sorted(_names)).encode() + b"\n")
    gc.collect()
    gc.disable()
    gc.freeze()  # no fork copies this memory because it collects its own
    _begin(*_serve(_control))()
