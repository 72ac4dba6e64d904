"""Writing: coloured lines to a terminal, plain lines and JSON to anything else."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tapps_otel.report.lines import Line

__all__ = [
    "Terminal",
    "close_streams",
    "command",
    "err",
    "make_logging_safe",
    "make_streams_tolerant",
    "out",
    "say_error",
    "styled",
    "value_text",
    "write_json",
]

_STYLES: Final = {"good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "strong": "bold"}
# Shown where an encoding lacks the character; one column each, so that columns stay aligned.
_ASCII: Final = {
    "✓": "+",
    "✗": "x",
    "…": "~",
    "·": "-",
    "█": "#",
    "▒": ":",
    "░": ".",
    "━": "=",
}
_ON_MISSING: Final = "tapps_otel_ascii"


class Terminal:
    """A stream to write lines to. It has colours and a width only if it is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()

    @cached_property
    def console(self) -> Console:
        """Rich's console on the stream, for what only a terminal can show."""
        from rich.console import Console

        return Console(file=self.stream, highlight=False, markup=False, emoji=False)

    @property
    def width(self) -> int | None:
        """Columns; ``None`` if it is not a terminal."""
        return self.console.width if self.is_terminal else None

    def say(self, *lines: Line | str) -> None:
        """Write lines, which must be safe to show."""
        if self.is_terminal:
            for line in lines:
                self.console.print(styled(line), soft_wrap=True)
        else:
            texts = (line if isinstance(line, str) else line.text for line in lines)
            self.stream.writelines(text + "\n" for text in texts)
        self.stream.flush()


def styled(line: Line | str) -> Text:
    """Convert a line to rich's text."""
    from rich.text import Text

    if isinstance(line, str):
        return Text(line)
    return Text.assemble(*((piece.text, _STYLES.get(piece.style, "")) for piece in line))


def out() -> Terminal:
    """Return standard output: for what was asked for."""
    return Terminal(sys.stdout)


def err() -> Terminal:
    """Return standard error: for progress, remarks, errors."""
    return Terminal(sys.stderr)


def write_json(value: Any) -> None:
    """Write one JSON value to standard output, safe to show."""
    sys.stdout.write(value_text(value, indent=2) + "\n")
    sys.stdout.flush()


def value_text(value: Any, *, indent: int | None = None) -> str:
    """Encode a value as JSON that standard output can hold, whatever its encoding."""
    from tapps_otel.report.text import json_text

    text = json_text(value, indent=indent)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json_text(value, indent=indent, ascii_only=True)
    return text


def say_error(text: str) -> None:
    """Write an error to standard error: what is wrong, then where and what to do next."""
    from tapps_otel.report.lines import Line
    from tapps_otel.report.text import block

    first, *rest = block(text)
    err().say(Line.of(("error: ", "bad"), first), *rest)


def command(arguments: str, log_dir: Path | None = None) -> str:
    """Return a command line for the user to type, with the program called as it was now.

    :param log_dir: as given on the command line; ``None`` if it was not
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


# -- the streams themselves


def make_streams_tolerant() -> None:
    """Let no character end the program: one that an encoding lacks is replaced."""
    codecs.register_error(_ON_MISSING, _replace_missing)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before this process began
            setattr(sys, name, io.StringIO())
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ON_MISSING)


def _replace_missing(error: UnicodeError) -> tuple[str, int]:
    """Write our own signs in ASCII, and any other character as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_ASCII.get(char) or _escape(char) for char in missing), error.end


def _escape(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode()


class _SafeFormatter(logging.Formatter):
    """Formats log records, which may quote a run's log, as lines that are safe to show."""

    def format(self, record: logging.LogRecord) -> str:
        from tapps_otel.report.text import block

        return "\n".join(block(super().format(record)))


def make_logging_safe() -> None:
    """Make log records safe to show that no handler takes, and that go to standard error."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_SafeFormatter())


def close_streams() -> None:
    """Discard what is left of the output, after its reader has closed the pipe."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.close()
