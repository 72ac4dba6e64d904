"""``send``: send spans from logs to a collector."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import command, err, out, write_json
from tapps_otel.errors import LogError, SendError, SpanFilterError, TappsError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.otel.replay.send_report import SendReport

__all__ = ["Sending", "send"]

_MOST_NAMED: Final = 10  # runs in a message


@dataclass(frozen=True)
class Sending:
    """What to send, and where to.

    :ivar workflow_id: one run; ``None`` for all
    :ivar since_ns: only runs written to since then, ns since 1970 UTC
    :ivar force: send acknowledged spans again
    """

    workflow_id: str | None
    since_ns: int | None
    endpoint: str | None
    protocol: str | None
    force: bool
    log_dir: Path | None


def send(what: Sending, *, as_json: bool) -> Code:
    """Send spans, and write a line for each run."""
    done: list[SendReport] = []
    bar = _Bar(what)
    try:
        with bar:
            for report in _reports(what, bar):
                done.append(report)
                if not as_json:
                    _say(report, what)
    except (SendError, LogError, SpanFilterError):  # what was sent before is reported all the same
        if bar.report is not None and bar.report not in done:
            done.append(bar.report)
            if not as_json and bar.report.sent:
                _say(bar.report, what)
        raise
    finally:
        if as_json and done:
            write_json([_json(one) for one in done] if what.workflow_id is None else _json(done[0]))
    if not done:
        err().say("no runs to send")
    if any(report.rejected or report.refused for report in done):
        if what.workflow_id is None and not as_json:
            _list_refused(done, what)
        return Code.UNSENT
    return Code.OK if all(report.ok for report in done) else Code.FAILED


def _reports(what: Sending, bar: _Bar) -> Iterable[SendReport]:
    from tapps_otel.run import sending

    to: dict[str, Any] = {
        "endpoint": what.endpoint,
        "protocol": what.protocol,
        "force": what.force,
        "log_dir": what.log_dir,
        "progress": bar.show,
        "waiting": bar.wait,
    }
    if what.workflow_id is None:
        return sending.send_all(since_ns=what.since_ns, **to)
    return (sending.send(name, **to) for name in [what.workflow_id])


def _json(report: SendReport) -> dict[str, Any]:
    return {**asdict(report), "ok": report.ok}


def _say(report: SendReport, what: Sending) -> None:
    terminal = out()
    terminal.say(
        Line.of(
            ("sent    ", "good") if report.ok else ("problem ", "bad"),
            (plain(report.workflow_id), "strong"),
            f"  {_counts(report)}, to {plain(report.destination)}",
        )
    )
    for text in report.problems:
        terminal.say(Line.of("        ", (plain(text), "bad")))
    if report.running:
        again = plain(command(f"send {report.workflow_id}", what.log_dir))
        words = "        it is in progress; what is unfinished now is sent later: "
        terminal.say(Line.of((words, "dim"), again))


def _counts(report: SendReport) -> str:
    has_news = report.sent or report.rejected or report.refused
    counts = [f"{counted(report.sent, 'span')} sent" if has_news else "nothing new"]
    others = {
        "acknowledged before": report.confirmed,
        "refused": report.refused,
        "rejected": report.rejected,
        "different from what was acknowledged": report.differing,
        "left out by span_filter": report.left_out,
    }
    counts += [f"{counted(number, 'span')} {words}" for words, number in others.items() if number]
    return ", ".join(counts)


def _list_refused(done: Iterable[SendReport], what: Sending) -> None:
    """Name the runs of which a collector did not take every span, once all were tried."""
    runs = [report for report in done if report.rejected or report.refused]
    spans = sum(report.rejected + report.refused for report in runs)
    named = ", ".join(plain(report.workflow_id) for report in runs[:_MOST_NAMED])
    more = f" and {len(runs) - _MOST_NAMED} more" if len(runs) > _MOST_NAMED else ""
    again = plain(command("send --force RUN", what.log_dir))
    err().say(
        f"{counted(spans, 'span')} refused, of {counted(len(runs), 'run')}: {named}{more}. The "
        f"reasons are above; once the collector takes such spans, `{again}` sends them"
    )


class _Bar(AbstractContextManager["_Bar"]):
    """A progress bar on a terminal; elsewhere a line where it waits for the collector.

    Progress in a run is measured by the lines of its log.

    :ivar report: of the run in progress
    """

    def __init__(self, what: Sending) -> None:
        self._progress: Any = None
        self._shown: Any = nullcontext()
        self._what = what
        self.report: SendReport | None = None
        self._waits = False

    def __enter__(self) -> Self:
        terminal = err()
        if terminal.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._progress = self._shown = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[spans]} spans", markup=False),
                TimeElapsedColumn(),
                console=terminal.console,
                transient=True,
                redirect_stdout=out().is_terminal,
            )
            self._task = self._progress.add_task("", total=None, spans=0)
        self._shown.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.__exit__(*error)

    def show(self, report: SendReport) -> None:
        """Show the progress of a run."""
        is_next, self.report = report is not self.report, report
        self._waits = False
        if self._progress is None:
            return
        if is_next:
            name = report.workflow_id
            self._progress.reset(
                self._task, description=plain(name), total=self._lines(name), spans=0
            )
        self._progress.update(self._task, completed=report.seq, spans=report.sent)

    def wait(self, reason: str, seconds: float) -> None:
        """Tell once, until there is progress again, that a request is sent again, and why."""
        if not self._waits:
            self._waits = True
            err().say(f"waiting for the collector, at most {seconds:.0f} s: {plain(reason)}")

    def _lines(self, workflow_id: str) -> int | None:
        from tapps_otel.run.lookup import store_of

        try:
            return store_of(self._what.log_dir).summary(workflow_id).seq or None
        except TappsError:
            return None
