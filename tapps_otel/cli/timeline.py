"""``timeline``: a run by time, in the terminal, as Markdown, as JSON, or as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tapps_otel.cli.codes import Code
from tapps_otel.cli.output import write_file
from tapps_otel.cli.terminal import err, out, say_error, write_json
from tapps_otel.report import timeline as report
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from tapps_otel.past.timeline import Timeline

__all__ = ["Form", "timeline", "write_page"]

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
    return _code(made)


def write_page(workflow_id: str, output: Path, *, force: bool, log_dir: Path | None) -> Code:
    """Write a run as one HTML page."""
    from tapps_otel.report.page.content import Recording, content
    from tapps_otel.report.page.render import render
    from tapps_otel.run.lookup import find
    from tapps_otel.run.timelines import read_side_logs, read_timeline

    store, workflow_id = find(workflow_id, log_dir)
    recording = Recording()
    made, history = read_timeline(store, workflow_id, see=recording.see)
    read_side_logs(store, workflow_id, see=recording.see_span)
    page = render(content(made, history, recording, jaeger=_trace_link(made)))
    write_file(output, page, logs=store.folder, force=force)
    where = (plain(str(output)), "strong")
    err().say(Line.of(("wrote    ", "good"), where, f"  {counted(len(made.steps), 'step')}"))
    return _code(made)


def _trace_link(timeline: Timeline) -> str | None:
    """Return the address of the run's trace; nothing is asked whether it is there."""
    from tapps_otel import settings
    from tapps_otel.otel.transport.jaeger import STACK_URL, trace_url

    url = (settings.current().jaeger_url or STACK_URL).rstrip("/")
    is_web = url.startswith(("http://", "https://"))
    return trace_url(url, timeline.trace_id) if is_web else None


def _code(timeline: Timeline) -> Code:
    if timeline.log is None or timeline.log.damage is None:
        return Code.OK
    say_error(timeline.log.damage)
    return Code.FAILED
