"""``python -m tests.reference``: write the parts of the documentation that come from the code.

Such a part is between ``<!-- generated: NAME -->`` and ``<!-- end -->`` in a page, where NAME may
have an argument. The tests compare the pages with what this module makes.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click
import typer

import tapps_otel
from tapps_otel import Backoff, Codec, errors, step, workflow
from tapps_otel.cli import codes
from tapps_otel.cli.app import app
from tapps_otel.instrumentation.spec import Adapter, ExecutorSpec
from tapps_otel.log.model import WorkflowEvent
from tapps_otel.otel.metrics.instruments import METRICS
from tapps_otel.settings_model import Settings
from tapps_otel.settings_types import Redaction, SpanFilter

PACKAGE: Final = Path(tapps_otel.__file__).parent
_PART: Final = re.compile(r"(<!-- generated: (\w+) ?(\S*) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_WIDTH: Final = 96  # columns of the help texts


# -- Markdown


def table(*rows: Iterable[str]) -> str:
    """A table; the first row is its heading."""
    first, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [first, ["---"] * len(first), *others]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def words(docstring: str | None) -> str:
    """A docstring's text as Markdown: roles and double backticks become backticks."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", inspect.cleandoc(docstring or ""))
    return text.replace("``", "`")


def summary(docstring: str | None) -> str:
    """Its first paragraph, on one line."""
    return " ".join(words(docstring).partition("\n\n")[0].split())


def fields(docstring: str | None, kind: str) -> dict[str, str]:
    """What its ``:param name:`` or ``:ivar name:`` lines say, by name."""
    found = re.findall(
        rf"^:{kind} (\w+): (.*?)(?=^:|^$|\Z)", words(docstring), re.DOTALL | re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in found}


def tick(text: object) -> str:
    """As code."""
    return f"`{text}`"


# -- the parts


def commands() -> str:
    """Every command's help, as the command line shows it."""
    parts = []
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        context = click.Context(
            command,
            info_name=f"tapps-otel {name}",
            help_option_names=["-h", "--help"],
            terminal_width=_WIDTH,
            max_content_width=_WIDTH,
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n\n")
    return "".join(parts)


def exit_codes() -> str:
    """The exit codes."""
    rows = [(str(int(number)), text) for number, text in codes.MEANINGS.items()]
    return table(("exit code", "meaning"), *rows)


def setting_table() -> str:
    """The settings, with what they may be."""
    said = fields(Settings.__doc__, "ivar")
    rows = [
        (tick(name), _values(one.annotation), tick(one.default), said[name])
        for name, one in Settings.model_fields.items()
    ]
    return table(("setting", "values", "default", "meaning"), *rows)


def _values(annotation: Any) -> str:
    """What a setting may be, for people."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(tick(one) for one in inner)
    if origin in {types.UnionType, typing.Union}:
        return ", ".join(_values(one) for one in inner if one is not type(None))
    if origin is tuple:
        return f"any of {_values(inner[0])}"
    if origin is dict:
        return "names and values"
    return {
        bool: "`True`, `False`",
        int: "integer",
        float: "number",
        str: "text",
        Path: "path",
        Redaction: "`Redaction(...)`",
        Codec: "`Codec`",
        SpanFilter: "function",
    }[annotation]


def error_table() -> str:
    """The errors, each with what it is a kind of, and the exit code of the command line."""
    rows = []
    for name in errors.__all__:
        kind = getattr(errors, name)
        bases = [base.__name__ for base in kind.__bases__ if base is not Exception]
        has = fields(kind.__doc__, "ivar")
        said = summary(kind.__doc__)
        if has:
            said += " Attributes: " + "; ".join(f"`{one}`: {text}" for one, text in has.items())
        code = codes.code_of(kind.__new__(kind))
        rows.append(
            (tick(name), ", ".join(map(tick, bases)) or "`Exception`", said, str(int(code)))
        )
    return table(("error", "a kind of", "when", "exit code"), *rows)


def step_options() -> str:
    """The options of ``@step``."""
    return _options(step)


def workflow_options() -> str:
    """The options of ``@workflow``."""
    return _options(workflow)


def backoff_options() -> str:
    """The fields of ``Backoff``."""
    return _options(Backoff)


def _options(made: Callable[..., Any]) -> str:
    said = fields(made.__doc__, "param")
    rows = [
        (tick(name), tick(_default(one.default)), said.get(name, ""))
        for name, one in inspect.signature(made).parameters.items()
        if one.kind is not inspect.Parameter.POSITIONAL_ONLY
    ]
    return table(("option", "default", "meaning"), *rows)


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_default(one) for one in value)}{',' * (len(value) == 1)})"
    return value.__name__ if isinstance(value, type) else repr(value)


def executor_spec() -> str:
    """The fields of an ``ExecutorSpec``."""
    said = {**fields(ExecutorSpec.__doc__, "ivar"), **fields(Adapter.__doc__, "ivar")}
    return table(("field", "meaning"), *((tick(name), text) for name, text in said.items()))


def event_fields() -> str:
    """The fields of a line of a log."""
    rows = [
        (
            tick(name),
            "always" if one.is_required() else "",
            " ".join((one.description or "").split()),
        )
        for name, one in WorkflowEvent.model_fields.items()
    ]
    return table(("field", "", "meaning"), *rows)


def metric_table() -> str:
    """The metrics."""
    rows = [
        (tick(one.name), tick(one.unit), ", ".join(map(tick, one.attributes)), one.description)
        for one in METRICS
    ]
    return table(("metric", "unit", "attributes", "what is measured"), *rows)


def public_names() -> str:
    """What ``tapps_otel`` gives to programs."""
    rows = [(tick(name), summary(getattr(tapps_otel, name).__doc__)) for name in _public()]
    return table(("name", "what it is"), *rows)


def _public() -> Iterator[str]:
    return (name for name in tapps_otel.__all__ if not name.startswith("__"))


def room(folder: str) -> str:
    """The modules of a folder of the package, with what each is for.

    :param folder: ``.`` is the package's own, without the folders in it
    """
    top = PACKAGE / folder
    found = sorted(top.glob("*.py") if folder == "." else top.rglob("*.py"))
    rows = [(tick(path.relative_to(top).as_posix()), _purpose(path)) for path in found]
    return table(("module", "what it is for"), *rows)


def _purpose(path: Path) -> str:
    return summary(ast.get_docstring(ast.parse(path.read_text("utf-8"))))


PARTS: Final[dict[str, Callable[..., str]]] = {
    "backoff": backoff_options,
    "commands": commands,
    "errors": error_table,
    "events": event_fields,
    "executor_spec": executor_spec,
    "exit_codes": exit_codes,
    "metrics": metric_table,
    "names": public_names,
    "room": room,
    "settings": setting_table,
    "step": step_options,
    "workflow": workflow_options,
}


def renewed(page: str) -> str:
    """A page with its generated parts made anew."""

    def part(found: re.Match[str]) -> str:
        opening, name, argument, end = found.groups()
        made = PARTS[name](argument) if argument else PARTS[name]()
        return f"{opening}{made.rstrip()}\n\n{end}"

    return _PART.sub(part, page)


def main() -> int:
    """Write the pages that changed, and name them."""
    for path in [PACKAGE / "README.md", *sorted(PACKAGE.glob("docs/*.md"))]:
        before = path.read_text("utf-8")
        after = renewed(before)
        if after != before:
            path.write_text(after, "utf-8")
            sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
