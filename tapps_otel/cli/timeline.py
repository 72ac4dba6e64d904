"""``timeline``: a run by time, in the terminal, as Markdown, or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import out, say_error, write_json
from tapps_otel.report import timeline as report
from tapps_otel.report.lines import Line

__all__ = ["Form", "timeline"]

Form = Literal["terminal", "markdown", "json"]


def timeline(workflow_id: str, form: Form, *, everything: bool, log_dir: Path | None) -> Code:
    """Show a run by time, as far as its log can be read.

    :param everything: a row for every step
    """
    import msgspec

    from tapps_otel.run.timelines import timeline

    made, terminal = timeline(workflow_id, log_dir=log_dir), out()
    if form == "json":
        write_json(msgspec.to_builtins(made))
    elif form == "markdown":
        terminal.say(*report.as_markdown(made, everything=everything))
    else:
        wide = terminal.width
        drawn = report.chart(made, columns=wide or 100, everything=everything)
        terminal.say(*report.facts(made, columns=wide), *([Line(), *drawn] if drawn else []))
    if made.log is None or made.log.damage is None:
        return Code.OK
    say_error(made.log.damage)
    return Code.FAILED
