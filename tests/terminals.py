"""A command on a terminal, which a test looks at while it runs, as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import pyte

import programs
from commands import command, environment, on_terminal

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_PATIENCE = 60  # seconds, on a machine that is busy


def displayed(*arguments: str, columns: int, **more: str) -> list[str]:
    """Run a command, and return what a person sees on a terminal, without blanks at line ends."""
    screen = pyte.Screen(columns, 70)
    pyte.Stream(screen).feed(on_terminal(*arguments, columns=columns, **more))
    return [line.rstrip() for line in screen.display]


class Terminal:
    """A terminal of the given size, and the command in it."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 100,
        rows: int = 30,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        full_env = environment(TERM="xterm-256color", **(env or {}))
        for name in ("COLUMNS", "LINES"):  # the terminal itself has a size
            full_env.pop(name, None)
        self.process = programs.Popen(
            command(*arguments), env=full_env, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without blanks at their ends."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the screen shows a text, given as a regular expression."""
        end = time.monotonic() + _PATIENCE
        while (found := re.search(pattern, self.text, re.MULTILINE)) is None:
            assert self._read(end), f"{pattern!r} is not shown:\n{self.text}"
        return found

    def wait(self) -> int:
        """Read until the command ends, and return its exit code."""
        end = time.monotonic() + _PATIENCE
        while self._read(end):
            pass
        return self.process.wait(timeout=_PATIENCE)

    def _read(self, end: float) -> bool:
        """Read what is written next; return whether there was anything before the end."""
        if not select.select([self._ours], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        with suppress(OSError):  # on Linux: the other side is closed
            data = os.read(self._ours, 65536)
            self._stream.feed(data)
            return bool(data)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(timeout=_PATIENCE)
        os.close(self._ours)
