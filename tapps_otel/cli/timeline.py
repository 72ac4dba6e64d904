"""``timeline``: a run by time, in the terminal, as Markdown or JSON; runs as HTML pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import next_lines
from tapps_otel.cli.output import naming, write_file
from tapps_otel.cli.terminal import err, out, say_error, write_json
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.report import timeline as report
from tapps_otel.report.lines import Line, fact_lines
from tapps_otel.report.text import counted, markdown, plain

if TYPE_CHECKING:
    from tapps_otel.log.store import Store
    from tapps_otel.past.timeline import Timeline

__all__ = ["Form", "timeline", "write_html"]

Form = Literal["terminal", "markdown", "json"]
_PAGES: Final = "runs"  # the folder of the runs' pages, beside their index


def timeline(workflow_id: str, form: Form, *, everything: bool, log_dir: Path | None) -> Code:
    """Show a run by time, as far as its log can be read.

    :param everything: a row for every step
    """
    import msgspec

    from tapps_otel.past.timeline import make_timeline
    from tapps_otel.run.lookup import store_of
    from tapps_otel.run.reading import read_run

    found, terminal = read_run(store_of(log_dir), workflow_id), out()
    made = make_timeline(found.history, now_ns=found.now_ns, log=found.log)
    if form == "json":
        write_json(msgspec.to_builtins(made))
        return _code(made)
    hints = next_lines(found, log_dir)
    if form == "markdown":
        terminal.say(*report.as_markdown(made, everything=everything))
        terminal.say(*([""] if hints else []), *(f"- {markdown(hint.text)}" for hint in hints))
    else:
        wide = terminal.width
        drawn = report.chart(made, columns=wide or 100, everything=everything)
        sections = [fact_lines(report.summary(made), wide=wide), drawn, hints]
        for number, section in enumerate(one for one in sections if one):
            terminal.say(*([Line()] if number else []), *section)
    return _code(made)


def write_html(workflow_ids: list[str], output: Path, *, force: bool, log_dir: Path | None) -> Code:
    """Write a run as one HTML page; several runs as pages in a folder, with an index of them."""
    from tapps_otel.run.lookup import find

    found = dict(find(one, log_dir)[::-1] for one in workflow_ids)  # stores by name of the log
    for name, store in found.items():
        store.summary(name)  # raises for a run that is not there, before anything is written
    if len(found) > 1:
        return _write_pages(found, output, force=force)
    ((name, store),) = found.items()
    made, page = _page(store, name)
    write_file(output, page, logs=store.folder, force=force)
    _say_written(output, counted(len(made.steps), "step"))
    return _code(made)


def _write_pages(found: dict[str, Store], folder: Path, *, force: bool) -> Code:
    from tapps_otel import clock
    from tapps_otel.log.files import system
    from tapps_otel.report.page.index import index_content, index_row
    from tapps_otel.report.page.render import render_index

    index, codes, rows = folder / "index.html", [], []
    if folder.suffix in {".html", ".htm"}:
        refuse_usage(f"{folder}: of several runs, --html names a folder: name one without .html")
    if not force and system().is_file(index):
        refuse_usage(f"{index}: File exists: name another folder, or pass --force to replace it")
    with naming(folder / _PAGES, "name another folder"):
        system().make_folder(folder / _PAGES)
    for name, store in found.items():
        made, page = _page(store, name, index="../index.html")
        write_file(folder / _PAGES / f"{name}.html", page, logs=store.folder, force=force)
        rows.append(index_row(made, f"{_PAGES}/{name}.html"))
        codes.append(_code(made))
    text = render_index(index_content(rows, now_ns=clock.time_ns()))
    write_file(index, text, logs=store.folder, force=force)
    _say_written(index, counted(len(rows), "run"))
    return max(codes)


def _page(store: Store, name: str, *, index: str | None = None) -> tuple[Timeline, str]:
    """Read a run, and make its page.

    :param index: address of an index that has the page
    """
    from tapps_otel.report.page.content import Recording, content
    from tapps_otel.report.page.render import render
    from tapps_otel.run.timelines import read_timeline

    recording = Recording()
    made, history = read_timeline(store, name, see=recording.see)
    data = content(made, history, recording, jaeger=_trace_link(made), index=index)
    return made, render(data)


def _say_written(output: Path, what: str) -> None:
    err().say(Line.of(("wrote    ", "good"), (plain(str(output)), "strong"), f"  {what}"))


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
