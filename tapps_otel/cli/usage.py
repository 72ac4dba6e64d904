"""Wrong usage: one exception and one form, for our own checks and for typer's."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, cast

import typer

from tapps_otel.cli.terminal import command, say_error

__all__ = ["ParserError", "UsageError", "parse_json", "refuse_usage", "say_usage_error"]

# The base of typer's own errors; which package has it differs between its versions.
ParserError: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])


class UsageError(Exception):
    """The arguments of a command do not fit together, or name something that cannot be used."""


def refuse_usage(text: str) -> NoReturn:
    """Reject the arguments.

    :param text: what is wrong, and what to give instead
    """
    raise UsageError(text)


def parse_json(text: str, option: str) -> Any:
    """Parse the value of an option that is JSON."""
    from tapps_otel.run.codecs.native import check_native

    try:
        value = json.loads(text)
        check_native(value)
    except (ValueError, TypeError, RecursionError) as error:
        refuse_usage(f"""{option} is not JSON: {error}. A string needs quotes: '"done"'""")
    return value


def say_usage_error(error: Any, name: str) -> None:
    """Write what is wrong, and where the usage is explained.

    :param name: of the command; empty for the program itself
    """
    text = str(error) if isinstance(error, UsageError) else _own_words(error)
    help_of = command(f"{name} --help".lstrip())
    say_error(f"{text}\n`{help_of}` explains the usage")


def _own_words(error: Any) -> str:
    """Return typer's message in the form of ours: no capital, no full stop."""
    text = str(error.format_message()).rstrip(".").replace(": Value error, ", ": ")
    return text[:1].lower() + text[1:]
