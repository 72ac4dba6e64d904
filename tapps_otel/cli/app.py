"""The commands: their arguments and their help. What they do stands in the modules beside this."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tapps_otel.cli.codes import MEANINGS, finish, refuse_usage

__all__ = ["app"]

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in MEANINGS.items())

app = typer.Typer(
    name="tapps-otel",
    help="Run workflows with a durable log, look at their runs, and resume them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help is quick, and fits a small terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.", show_default=False)]
LogDir = Annotated[
    Path | None,
    typer.Option(
        "--log-dir",
        metavar="DIR",
        help="Folder of the logs.",
        show_default=False,
        rich_help_panel=None,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


class ExportFormat(StrEnum):
    """What ``export --format`` can ask for."""

    otlp_json = "otlp-json"
    chrome_trace = "chrome-trace"
    csv = "csv"


class Status(StrEnum):
    """What ``list --status`` can ask for."""

    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    interrupted = "interrupted"
    paused = "paused"
    damaged = "damaged"


def _version(wanted: bool) -> None:
    if wanted:
        from tapps_otel.version import __version__

        typer.echo(f"tapps-otel {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNC",
            help="The workflow: package.module:function, or file.py:function.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON",
            help="Arguments: an object by name or a list; @FILE reads a file, - standard input.",
        ),
    ] = "{}",
    workflow_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="RUN",
            help="Name of the run; one that is there goes on, or gives its result.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log_dir: LogDir = None,
) -> None:
    """Run a workflow, or go on with a named run.

    Progress goes to standard error, the result to standard output.
    """
    from tapps_otel.cli import running

    finish(lambda: running.run(workflow, inputs, workflow_id, log_dir=log_dir, quiet=quiet))


@app.command()
def resume(
    workflow_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Id of a run.", show_default=False),
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="The run that was written to last.")] = False,
    accept_change: Annotated[
        bool,
        typer.Option(
            "--accept-change",
            help="Go on although the steps of an executor's workflow have changed.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log_dir: LogDir = None,
) -> None:
    """Go on with a run that was interrupted or failed.

    Its workflow and its inputs are those in its log. What has finished does not run again.
    """
    from tapps_otel.cli import running

    if (workflow_id is None) is not last:
        refuse_usage("give the id of a run, or --last")
    finish(
        lambda: running.resume(
            workflow_id, accept_change=accept_change, log_dir=log_dir, quiet=quiet
        )
    )


@app.command("list")
def list_(  # noqa: PLR0917 - typer gives them by name
    status: Annotated[
        Status | None, typer.Option(help="Only runs of this status.", show_default=False)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only runs of this workflow.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only runs written to since then: 90s, 15m, 2h, 3d, or a day or time (UTC).",
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        int, typer.Option("--last", "-n", metavar="N", min=0, help="At most so many; 0: all.")
    ] = 20,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """List the runs, the one written to last first."""
    from tapps_otel.cli import reading

    filters: dict[str, Any] = {
        "status": status and status.value,
        "workflow": workflow,
        "since_ns": None if since is None else reading.moment(since),
    }
    finish(lambda: reading.list_runs(filters, last, as_json=as_json, log_dir=log_dir))


@app.command()
def show(workflow_id: RunId, as_json: AsJson = False, log_dir: LogDir = None) -> None:
    """Show a run's history.

    What ran, when, how long, what failed, what is open, and where it would go on. Times are UTC.
    """
    from tapps_otel.cli import reading

    finish(lambda: reading.show(workflow_id, as_json=as_json, log_dir=log_dir))


@app.command("open")
def open_(workflow_id: RunId, log_dir: LogDir = None) -> None:
    """Print the link of a run's trace in Jaeger; on a desktop, open it.

    TAPPS_OTEL_JAEGER_URL says which Jaeger; else it is this project's, on this machine.
    """
    from tapps_otel.cli import opening

    finish(lambda: opening.open_trace(workflow_id, log_dir=log_dir))


@app.command()
def verify(
    workflow_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Id of a run.", show_default=False),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run of the folder.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_URL",
            help="Compare with the spans in a file of OTLP JSON lines, or in a Jaeger "
            "(http://localhost:16686).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Check every byte of a log against its chain.

    Lines cut off the end, and a log that was rewritten whole, show only against spans that were
    sent: they tell of the log's head. With --against, every span of the log is looked for there,
    and every span of the run there in the log.
    """
    from tapps_otel.cli import verifying

    if (workflow_id is None) is not all_runs:
        refuse_usage("give the id of a run, or --all")
    finish(lambda: verifying.verify(workflow_id, against, as_json=as_json, log_dir=log_dir))


@app.command()
def repair(
    workflow_id: RunId,
    accept_damage: Annotated[
        bool,
        typer.Option("--accept-damage", help="Needed: you have looked at it (verify, show)."),
    ] = False,
    log_dir: LogDir = None,
) -> None:
    """Accept a log's damage, so that the run can go on.

    Nothing is removed or rewritten: one line is added that declares everything behind the last
    good line. What stood there is lost to the run; steps whose end was there run again.
    """
    from tapps_otel.cli import mending

    if not accept_damage:
        refuse_usage("a person decides: say --accept-damage")
    finish(lambda: mending.repair(workflow_id, log_dir=log_dir))


@app.command()
def resolve(
    workflow_id: RunId,
    step_id: Annotated[
        str, typer.Argument(metavar="STEP", help="Step id, as show writes it.", show_default=False)
    ],
    result: Annotated[
        str | None,
        typer.Option(
            "--result",
            metavar="JSON",
            help="It did its work: this is its result.",
            show_default=False,
        ),
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="It may run again.")] = False,
    log_dir: LogDir = None,
) -> None:
    """Say what became of an interrupted step.

    For steps that resume does not run again by itself: those with on_interrupted="fail", and
    those that were interrupted too often.
    """
    from tapps_otel.cli import mending

    if (result is None) is not rerun:
        refuse_usage("give --result JSON or --rerun")
    finish(lambda: mending.resolve(workflow_id, step_id, result, log_dir=log_dir))


class Protocol(StrEnum):
    """How a collector is spoken to."""

    grpc = "grpc"
    http = "http/protobuf"


@app.command()
def send(  # noqa: PLR0917 - typer gives them by name
    workflow_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Id of a run.", show_default=False),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all", help="Every run of the folder.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Every run written to since then: 90s, 15m, 2h, 3d, or a day or time (UTC).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="All spans, also those that were confirmed.")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The collector, as http://localhost:4317; else OTEL_EXPORTER_OTLP_ENDPOINT.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="How it is spoken to.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Send spans from logs to a collector.

    Those that it has not confirmed yet, also of runs that were killed, made without
    OpenTelemetry, or whose collector was down. The standard OTEL_EXPORTER_OTLP_ variables hold.
    """
    from tapps_otel.cli import reading, sending

    if [workflow_id is not None, all_runs, since is not None].count(True) != 1:
        refuse_usage("give the id of a run, --all, or --since TIME")
    what = sending.Sending(
        workflow_id=workflow_id,
        since_ns=None if since is None else reading.moment(since),
        endpoint=endpoint,
        protocol=protocol and protocol.value,
        force=force,
        log_dir=log_dir,
    )
    finish(lambda: sending.send(what, as_json=as_json))


@app.command()
def export(
    workflow_id: RunId,
    form: Annotated[
        ExportFormat, typer.Option("--format", "-f", help="What to write.", show_default=False)
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to: a new file, readable by you alone; - is standard output.",
        ),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    log_dir: LogDir = None,
) -> None:
    """Write a run for other programs.

    \b
    otlp-json     spans as OTLP JSON Lines: for collectors, Jaeger's upload
    chrome-trace  spans as Trace Event JSON: for Perfetto, chrome://tracing
    csv           the log's events, one a row: for spreadsheets (text that begins
                  like a formula gets an apostrophe in front)

    Of a run that is going on, spans are those that have ended. A file stands under its name once
    it is whole. Where the log is damaged, what stands before the damage is written.
    """  # noqa: D301 - the backslash is for click
    from tapps_otel.cli import exporting

    file = None if output == "-" else Path(output)
    if force and file is None:
        refuse_usage("--force is for --output FILE")
    finish(lambda: exporting.export(workflow_id, form.value, file, force=force, log_dir=log_dir))


@app.command()
def schema() -> None:
    """Write the JSON Schema of a line of a log."""
    from tapps_otel.cli import reading

    finish(reading.schema)


@app.command()
def doctor(as_json: AsJson = False, log_dir: LogDir = None) -> None:
    """Check folder, disk, locks, settings, collector.

    Everything is tried out, and removed again.
    """
    from tapps_otel.cli import checking

    finish(lambda: checking.doctor(as_json=as_json, log_dir=log_dir))


@app.command()
def demo(log_dir: LogDir = None) -> None:
    """Watch a workflow be killed and resumed.

    It does real work on files, in a process that is killed in the middle of a step. It takes
    less than ten seconds.
    """
    from tapps_otel.cli import showing

    finish(lambda: showing.demo(log_dir=log_dir))
