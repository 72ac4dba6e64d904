"""Writing: lines with colours to a terminal, plain lines and JSON to anything else."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tapps_otel.report.lines import Line

__all__ = [
    "Terminal",
    "command",
    "err",
    "out",
    "safe_logging",
    "say_error",
    "silence",
    "styled",
    "tolerant_streams",
    "write_json",
]

_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "strong": "bold"}


class Terminal:
    """A stream to write lines to. Colours and a width only where somebody looks."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()

    @cached_property
    def console(self) -> Console:
        """Of rich, for what only a terminal can show."""
        from rich.console import Console

        return Console(file=self.stream, highlight=False, markup=False, emoji=False)

    @property
    def width(self) -> int | None:
        """Columns; ``None`` where it is no terminal."""
        return self.console.width if self.is_terminal else None

    def say(self, *lines: Line | str) -> None:
        """Write lines, which are safe to show."""
        if self.is_terminal:
            for line in lines:
                self.console.print(styled(line), soft_wrap=True)
        else:
            texts = (line if isinstance(line, str) else line.text for line in lines)
            self.stream.writelines(text + "\n" for text in texts)
        self.stream.flush()


def styled(line: Line | str) -> Text:
    """A line for rich."""
    from rich.text import Text

    if isinstance(line, str):
        return Text(line)
    return Text.assemble(*((piece.text, _STYLES.get(piece.style, "")) for piece in line))


def out() -> Terminal:
    """Standard output: what was asked for."""
    return Terminal(sys.stdout)


def err() -> Terminal:
    """Standard error: progress, remarks, errors."""
    return Terminal(sys.stderr)


def write_json(value: Any) -> None:
    """One JSON value on standard output, safe to show."""
    from tapps_otel.report.text import json_text

    sys.stdout.write(json_text(value, indent=2) + "\n")
    sys.stdout.flush()


def say_error(text: str) -> None:
    """An error on standard error; its first line says what, the others where and how on."""
    from tapps_otel.report.lines import Line
    from tapps_otel.report.text import block

    first, *rest = block(text)
    err().say(Line.of(("error: ", "bad"), first), *rest)


def command(arguments: str, log_dir: Path | None = None) -> str:
    """A command for the user to type, called as this one was.

    :param log_dir: as it was given; left out where it was not
    """
    where = "" if log_dir is None else f" --log-dir {shlex.quote(str(log_dir))}"
    return f"{_program()} {arguments}{where}"


def _program() -> str:
    called = Path(sys.argv[0] if sys.argv else "")
    if called.name == "__main__.py":
        return f"{Path(sys.executable).name or 'python'} -m tapps_otel"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    if called.name == "tapps-otel" and str(called.parent.absolute()) not in folders:
        return shlex.quote(str(called))
    return "tapps-otel"


def tolerant_streams() -> None:
    """Let characters that the terminal's encoding lacks be escaped, not end the program."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before this process began
            setattr(sys, name, io.StringIO())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _SafeLines(logging.Formatter):
    """Remarks of libraries, which may quote a log, as lines that are safe to show."""

    def format(self, record: logging.LogRecord) -> str:
        from tapps_otel.report.text import block

        return "\n".join(block(super().format(record)))


def safe_logging() -> None:
    """Let remarks that no handler takes, and that go to standard error, be safe to show."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_SafeLines())


def silence() -> None:
    """Nobody reads the output any more: let what is left of it go in silence."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.close()
