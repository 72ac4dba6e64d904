"""The commands: their arguments and help. What each does is in the module of its name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from tapps_otel.cli.arguments import (
    AllRuns,
    AsJson,
    FirstRun,
    Last,
    LogDir,
    OneRun,
    Quiet,
    Reason,
    RunId,
    RunIds,
    SecondRun,
    StepId,
    chosen_run,
    chosen_step,
    given_run,
    parse_size,
    parse_span,
    parse_time,
)
from tapps_otel.cli.codes import MEANINGS, Code, finish
from tapps_otel.cli.usage import ParserError, UsageError, refuse_usage, say_usage_error

__all__ = ["app", "run_app"]

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in MEANINGS.items())

app = typer.Typer(
    name="tapps-otel",
    help="Run workflows with a durable log, look at their runs, and resume them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help is quick, and fits a small terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def run_app(arguments: list[str]) -> int:
    """Run the command that the arguments name, and return its exit code."""
    try:
        return _command()(args=arguments, prog_name="tapps-otel", standalone_mode=False) or Code.OK
    except (UsageError, ParserError) as error:
        if arguments:
            say_usage_error(error, _command_name(arguments))
        else:  # the error is the help
            typer.echo(str(error), err=True)
        return Code.USAGE


@cache  # most of the time of a short command; a process may run several
def _command() -> Callable[..., Any]:
    return typer.main.get_command(app)


def _command_name(arguments: list[str]) -> str:
    """Return the name of the command that was called; empty if there is none of that name."""
    names = {command.name for command in app.registered_commands}
    return arguments[0] if arguments[0] in names else ""


def _show_version(wanted: bool) -> None:
    if wanted:
        from tapps_otel.version import __version__

        typer.echo(f"tapps-otel {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command("run")
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
            help="Id of the run. One that exists is resumed, or its result is printed.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    log_dir: LogDir = None,
) -> None:
    """Run a workflow, or resume a named run.

    Progress goes to standard error, the result to standard output.
    """
    from tapps_otel.cli.run import run

    finish(lambda: run(workflow, inputs, workflow_id, log_dir=log_dir, quiet=quiet))


@app.command("resume")
def resume(  # noqa: PLR0917 - typer passes them by name
    workflow_id: RunId = None,
    workflow: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:FUNC",
            help="Its workflow, where that is elsewhere now: as for run.",
            show_default=False,
        ),
    ] = None,
    last: Last = False,
    due: Annotated[
        bool,
        typer.Option(
            "--due", help="Every paused run that was answered, or whose time has come, in turn."
        ),
    ] = False,
    answer: Annotated[
        str | None,
        typer.Option(
            "--answer",
            metavar="JSON",
            help="First answer a question of the run, as the command answer does.",
            show_default=False,
        ),
    ] = None,
    step: Annotated[
        str | None,
        typer.Option(
            "--step",
            metavar="STEP",
            help="The pause that --answer is for; needed where the run asks several questions.",
            show_default=False,
        ),
    ] = None,
    accept_change: Annotated[
        bool,
        typer.Option(
            "--accept-change",
            help="Resume although the steps of an executor's workflow have changed.",
        ),
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Run the code that the log names, also outside the current project."
        ),
    ] = False,
    quiet: Quiet = False,
    log_dir: LogDir = None,
) -> None:
    """Resume a run that was interrupted or failed, or that was paused and can continue.

    Workflow and inputs are taken from its log. Completed steps do not run again. Where a project
    was copied or moved, its code below the current directory is taken, and named. Code outside the
    current project is run only if you agree. On a terminal, the command asks; otherwise pass
    --trust.

    With --due, for cron: the exit code is 0 if every run completed or waits again, else that of
    the first that did not; one that fails does not stop the others.
    """
    from tapps_otel.cli.resume import resume, resume_due, run_to_resume

    if due:
        if workflow_id or last or step or answer is not None or accept_change:
            refuse_usage("--due resumes every run that is due: give no run, --last or --answer")
        finish(lambda: resume_due(trust=trust, log_dir=log_dir, quiet=quiet))
    if step is not None and answer is None:
        refuse_usage("--step names the pause that --answer is for: give --answer, too")
    finish(
        lambda: resume(
            run_to_resume(given_run(workflow_id, last=last), log_dir),
            workflow,
            answer=answer,
            step=step,
            accept_change=accept_change,
            trust=trust,
            log_dir=log_dir,
            quiet=quiet,
        )
    )


class Status(StrEnum):
    """What ``list --status`` can ask for."""

    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    interrupted = "interrupted"
    paused = "paused"
    answered = "answered"
    damaged = "damaged"


class Sort(StrEnum):
    """What ``list --sort`` can ask for."""

    last = "last"
    started = "started"
    took = "took"
    status = "status"
    workflow = "workflow"
    name = "name"


@app.command("list")
def list_(  # noqa: PLR0917 - typer passes them by name
    status: Annotated[
        Status | None, typer.Option(help="Only runs with this status.", show_default=False)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only runs of this workflow.", show_default=False),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only runs with a step of this agent: their logs are read whole.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Only runs with this text in id, workflow, last step or error.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only runs written to since then: 90s, 15m, 2h, 3d, or a day or time (UTC).",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        Sort, typer.Option(help="The order: the latest, longest or first name first.")
    ] = Sort.last,
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False,
    last: Annotated[
        int, typer.Option("--last", "-n", metavar="N", min=0, help="At most this many; 0: all.")
    ] = 20,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """List the runs, the one written to last first.

    STEPS: how many are done, of those that have begun; of a log above 4 MiB, its events.
    """
    from tapps_otel.cli.list import Order, list_runs

    filters = {
        "status": status and status.value,
        "workflow": workflow,
        "agent": agent,
        "text": text,
        "since_ns": None if since is None else parse_time(since),
    }
    order = Order(sort.value, reverse)
    finish(lambda: list_runs(filters, last, order, as_json=as_json, log_dir=log_dir))


@app.command("show")
def show(  # noqa: PLR0917 - typer passes them by name
    workflow_id: RunId = None,
    step_id: StepId = None,
    last: Last = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show everything, however long it is.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="A row for every step.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only steps that have not completed.")
    ] = False,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--step",
            metavar="PATTERN",
            help="Only steps whose name or id fits, as 'fetch*'.",
            show_default=False,
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only steps of this agent.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Show a run on one screen, or one of its steps whole.

    What ran, when, how long, what failed, was killed, is unfinished, and where a resume would
    continue. More than 60 steps are summed up by name. With STEP: inputs, result, every attempt,
    errors with their stacks, annotations and captured spans of that step. Times are UTC.
    """
    from tapps_otel.cli.show import Choice, show, show_step

    given, step = chosen_step(workflow_id, step_id, last=last)
    choice = Choice(everything, failed, pattern, agent)
    if step is not None and choice != Choice():
        refuse_usage("give STEP, or --all, --failed, --step and --agent")

    def shown() -> Code:
        run = chosen_run(given, last=last, log_dir=log_dir)
        if step is not None:
            return show_step(run, step, verbose=verbose, as_json=as_json, log_dir=log_dir)
        return show(run, choice, verbose=verbose, as_json=as_json, log_dir=log_dir)

    finish(shown)


@app.command("watch")
def watch(
    workflow_id: RunId = None,
    last: Last = False,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="End, too, if no process executes the run at present."),
    ] = False,
    log_dir: LogDir = None,
) -> None:
    """Watch a run until it ends.

    Steps in progress and for how long, how many are done, and what happened last. `watch`
    continues when an interrupted run is resumed. The exit code is that of the run: 0 if it
    completed, 1 if it failed, 5 if it was paused, 130 if it was interrupted and is not waited for.
    """
    from tapps_otel.cli.watch import watch

    def show() -> Code:
        run = chosen_run(workflow_id, last=last, log_dir=log_dir)
        return watch(run, wait=not no_wait, log_dir=log_dir)

    finish(show)


@app.command("timeline")
def timeline(  # noqa: PLR0917 - typer passes them by name
    workflow_ids: RunIds = None,
    last: Last = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Write Markdown.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write an HTML page that needs no network: a new file, readable only by you. "
            "Of several runs: a folder of pages with an index.html.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="A row for every step.")] = False,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Show a run by time.

    Executions, the time between them, and every attempt of every step as bars; which step was
    killed, what was not run again, and which steps the run waited for. Times are UTC.
    """
    from tapps_otel.cli.timeline import Form, timeline, write_html

    if [markdown, html is not None, as_json].count(True) > 1:
        refuse_usage("give one of --markdown, --html FILE and --json")
    if force and html is None:
        refuse_usage("--force needs --html FILE")
    if html is None and len(workflow_ids or ()) > 1:
        refuse_usage("several runs need --html FOLDER; diff compares two")
    form: Form = "json" if as_json else "markdown" if markdown else "terminal"

    def show() -> Code:
        runs = [chosen_run(one, last=last, log_dir=log_dir) for one in workflow_ids or (None,)]
        if html is not None:
            return write_html(runs, html, force=force, log_dir=log_dir)
        return timeline(runs[0], form, everything=everything, log_dir=log_dir)

    finish(show)


@app.command("diff")
def diff(
    first: FirstRun,
    second: SecondRun,
    everything: Annotated[
        bool, typer.Option("--all", help="A row for every step that differs.")
    ] = False,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Show how run B differs from run A.

    Steps that only one of them has, other inputs, results, errors and attempts: the first
    divergence first. Durations always differ; the largest changes are shown. The exit code is 0
    if nothing else differs.
    """
    from tapps_otel.cli.diff import diff

    def compare() -> Code:
        runs = [chosen_run(one, last=False, log_dir=log_dir) for one in (first, second)]
        return diff(*runs, everything=everything, as_json=as_json, log_dir=log_dir)

    finish(compare)


@app.command("open")
def open_(workflow_id: RunId = None, last: Last = False, log_dir: LogDir = None) -> None:
    """Print the link to a run's trace in Jaeger; on a desktop, open it.

    TAPPS_OTEL_JAEGER_URL names the Jaeger; the default is this project's, on this machine.
    """
    from tapps_otel.cli.open import open_trace

    finish(lambda: open_trace(chosen_run(workflow_id, last=last, log_dir=log_dir), log_dir=log_dir))


@app.command("verify")
def verify(  # noqa: PLR0917 - typer passes them by name
    workflow_id: RunId = None,
    last: Last = False,
    all_runs: AllRuns = False,
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
    """Check every byte of a log against its hash chain.

    Lines cut off the end, or a log rewritten as a whole, show only in a comparison with spans that
    were sent, which record the log's head. With --against, every span of the log is looked up
    there, and every span of the run there is looked up in the log.
    """
    from tapps_otel.cli.verify import verify

    if [workflow_id is not None, last, all_runs].count(True) != 1:
        refuse_usage("give the id of a run, --last, or --all")

    def check() -> Code:
        run = None if all_runs else chosen_run(workflow_id, last=last, log_dir=log_dir)
        return verify(run, against, as_json=as_json, log_dir=log_dir)

    finish(check)


@app.command("repair")
def repair(
    workflow_id: RunId = None,
    last: Last = False,
    accept_damage: Annotated[
        bool,
        typer.Option("--accept-damage", help="Required: you have looked at it (verify, show)."),
    ] = False,
    log_dir: LogDir = None,
) -> None:
    """Accept a log's damage, so that the run can be resumed.

    Nothing is removed or rewritten: one line is added that declares everything after the last
    good line as damaged. The run has lost it; steps that were completed there run again.
    """
    from tapps_otel.cli.repair import repair

    if not accept_damage:
        refuse_usage(
            "nothing was repaired: pass --accept-damage once you have looked at the damage "
            "(verify, show)"
        )
    finish(lambda: repair(chosen_run(workflow_id, last=last, log_dir=log_dir), log_dir=log_dir))


@app.command("answer")
def answer(  # noqa: PLR0917 - typer passes them by name
    workflow_id: RunId = None,
    step_id: StepId = None,
    last: Last = False,
    value: Annotated[
        str | None,
        typer.Option("--json", metavar="JSON", help="The answer.", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="Who answers; else this user.", show_default=False),
    ] = None,
    reason: Reason = None,
    log_dir: LogDir = None,
) -> None:
    """Answer a question of a paused run.

    STEP is needed where the run asks several. The answer must fit the type that is asked for. The
    log records who answered, when and from where. The run is resumed by resume, or by a worker
    that looks for such runs: list --status answered.
    """
    from tapps_otel.cli.answer import answer

    if value is None:
        refuse_usage("give the answer: --json JSON")
    given, step = chosen_step(workflow_id, step_id, last=last)

    def write() -> Code:
        run = chosen_run(given, last=last, log_dir=log_dir)
        return answer(run, step, value, by=by, reason=reason, log_dir=log_dir)

    finish(write)


@app.command("resolve")
def resolve(  # noqa: PLR0917 - typer passes them by name
    workflow_id: RunId = None,
    step_id: StepId = None,
    last: Last = False,
    result: Annotated[
        str | None,
        typer.Option(
            "--result",
            metavar="JSON",
            help="The step did its work, with this result.",
            show_default=False,
        ),
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="The step may run again.")] = False,
    reason: Reason = None,
    log_dir: LogDir = None,
) -> None:
    """Settle what became of an interrupted step.

    For steps that a resume does not run again by itself: those with on_interrupted="fail", and
    those that were interrupted too often. The log records who decided that, and when.
    """
    from tapps_otel.cli.resolve import resolve

    if (result is None) is not rerun:
        refuse_usage("give --result JSON or --rerun")
    given, step = chosen_step(workflow_id, step_id, last=last)
    if step is None:
        refuse_usage("give the id of the step, as show prints it")

    def settle() -> Code:
        run = chosen_run(given, last=last, log_dir=log_dir)
        return resolve(run, step, result, reason=reason, log_dir=log_dir)

    finish(settle)


class Protocol(StrEnum):
    """What ``send --protocol`` can ask for."""

    grpc = "grpc"
    http = "http/protobuf"


@app.command("send")
def send(  # noqa: PLR0917 - typer passes them by name
    workflow_id: RunId = None,
    last: Last = False,
    all_runs: AllRuns = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Every run written to since then: 90s, 15m, 2h, 3d, or a day or time (UTC).",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Send spans again that were acknowledged.")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The collector, as http://localhost:4317; default: OTEL_EXPORTER_OTLP_ENDPOINT.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="The OTLP protocol to use.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Send spans from logs to a collector.

    Sends those that it has not acknowledged yet, also of runs that were killed, were made without
    OpenTelemetry, or whose collector was down. The OTEL_EXPORTER_OTLP_ variables apply.
    """
    from tapps_otel.cli.send import Sending, send

    if [workflow_id is not None, last, all_runs, since is not None].count(True) != 1:
        refuse_usage("give the id of a run, --last, --all, or --since TIME")
    several = all_runs or since is not None

    def what() -> Sending:
        return Sending(
            None if several else chosen_run(workflow_id, last=last, log_dir=log_dir),
            since_ns=None if since is None else parse_time(since),
            endpoint=endpoint,
            protocol=protocol and protocol.value,
            force=force,
            log_dir=log_dir,
        )

    finish(lambda: send(what(), as_json=as_json))


class Prunable(StrEnum):
    """What ``prune --status`` can ask for."""

    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    timeout = "timeout"
    interrupted = "interrupted"
    paused = "paused"
    answered = "answered"
    damaged = "damaged"


@app.command("prune")
def prune(  # noqa: PLR0917 - typer passes them by name
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN",
            help="Remove runs last written to longer ago than SPAN: 90d, 8w, 12h.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Keep the N runs written to last; alone, remove all others.",
            show_default=False,
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Remove the oldest runs until all files together are at most SIZE: 5GB, 500MiB.",
            show_default=False,
        ),
    ] = None,
    status: Annotated[
        Prunable | None, typer.Option(help="Only runs with this status.", show_default=False)
    ] = None,
    unsent: Annotated[
        bool, typer.Option("--unsent", help="Also runs whose spans are still to be sent.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would be removed.")
    ] = False,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Remove old runs with everything that belongs to them.

    For each removed run, pruned.jsonl records its id and head; `verify pruned` checks that file.
    Runs in progress are never removed, nor what an unfinished run has called. Interrupted, paused
    and damaged runs are removed only by --status.
    """
    from tapps_otel.cli.prune import prune

    if older_than is None and keep is None and max_size is None:
        refuse_usage("give --older-than SPAN, --keep N or --max-size SIZE")
    conditions = {
        "older_than": None if older_than is None else parse_span(older_than),
        "keep": keep,
        "max_size": None if max_size is None else parse_size(max_size),
        "status": status and status.value,
        "unsent": unsent,
    }
    finish(lambda: prune(conditions, dry_run=dry_run, as_json=as_json, log_dir=log_dir))


@app.command("cancel")
def cancel(
    workflow_id: OneRun,
    by: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="Who cancels it, for the log.", show_default=False),
    ] = None,
    reason: Reason = None,
    signal: Annotated[
        bool,
        typer.Option("--signal", help="Ask a process that executes it to end, with all its runs."),
    ] = False,
    log_dir: LogDir = None,
) -> None:
    """Cancel a run that is paused or was interrupted.

    Its open steps end as interrupted, its questions as cancelled. The runs that its open steps
    have called are cancelled, too. With --signal, a process of this machine that executes it gets
    SIGTERM, and is waited for. A run that was cancelled can still be resumed.
    """
    from tapps_otel.cli.cancel import cancel

    def end() -> Code:
        run = chosen_run(workflow_id, last=False, log_dir=log_dir)
        return cancel(run, by=by, reason=reason, signal=signal, log_dir=log_dir)

    finish(end)


@app.command("fork")
def fork(  # noqa: PLR0917 - typer passes them by name
    workflow_id: OneRun,
    from_step: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Id of a step, as show prints it; or its name, if no other has it.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON",
            help="Arguments to change, by name; @FILE reads a file, - standard input.",
            show_default=False,
        ),
    ] = None,
    new_id: Annotated[
        str | None,
        typer.Option("--id", metavar="NEW", help="Id of the new run.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    log_dir: LogDir = None,
) -> None:
    """Start a new run from a step of another one.

    It begins with what that run had finished before STEP began; `resume NEW` runs STEP and what
    comes after it. The other run stays as it is, and may be in progress. STEP may have any
    outcome, and may be nested: the steps around it run again, without what had finished inside.
    """
    from tapps_otel.cli.fork import fork

    def make() -> Code:
        run = chosen_run(workflow_id, last=False, log_dir=log_dir)
        return fork(run, from_step, inputs, new_id, as_json=as_json, log_dir=log_dir)

    finish(make)


@app.command("pack")
def pack(
    workflow_id: OneRun,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A new file, as run.zip.", show_default=False)
    ],
    log_dir: LogDir = None,
) -> None:
    """Write a run to one file, to move it.

    With its large values, side logs and ledger, and with the runs that its steps called. All of it
    is verified. The folder stays as it is.
    """
    from tapps_otel.cli.pack import pack

    finish(lambda: pack(chosen_run(workflow_id, last=False, log_dir=log_dir), file, log_dir))


@app.command("unpack")
def unpack(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file of pack.", show_default=False)
    ],
    log_dir: LogDir = None,
) -> None:
    """Add the runs of such a file to the log folder.

    The file is not trusted: it is verified before a run appears, and no existing run is touched.
    """
    from tapps_otel.cli.pack import unpack

    finish(lambda: unpack(file, log_dir))


@app.command("migrate")
def migrate() -> None:
    """Make the tables of the store, or update them.

    The store is the PostgreSQL database that TAPPS_OTEL_STORE names.
    """
    from tapps_otel.cli.store import migrate

    finish(migrate)


@app.command("push")
def push(workflow_id: OneRun, log_dir: LogDir = None) -> None:
    """Copy a run from the log folder to the store.

    The events that only the folder has, with their large values and side logs.
    """
    from tapps_otel.cli.store import push

    finish(lambda: push(workflow_id, log_dir))


@app.command("pull")
def pull(workflow_id: OneRun, log_dir: LogDir = None) -> None:
    """Copy a run from the store to the log folder.

    The events that only the store has. Other commands do that by themselves. A log that is damaged,
    or has other events than the store, is set aside.
    """
    from tapps_otel.cli.store import pull

    finish(lambda: pull(workflow_id, log_dir))


class ExportFormat(StrEnum):
    """What ``export --format`` can ask for."""

    otlp_json = "otlp-json"
    chrome_trace = "chrome-trace"
    csv = "csv"


@app.command("export")
def export(  # noqa: PLR0917 - typer passes them by name
    form: Annotated[
        ExportFormat, typer.Option("--format", "-f", help="What to write.", show_default=False)
    ],
    workflow_id: RunId = None,
    last: Last = False,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A new file, readable only by you; - is standard output.",
        ),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    log_dir: LogDir = None,
) -> None:
    """Write a run for other programs.

    \b
    otlp-json     spans as OTLP JSON Lines: for collectors, Jaeger's upload
    chrome-trace  spans as Trace Event JSON: for Perfetto, chrome://tracing
    csv           the log's events, one a row: for spreadsheets (text that begins
                  like a formula gets an apostrophe in front)

    Of a run in progress, the spans that have ended are written. A file has its name only once it
    is complete. Of a damaged log, only what comes before the damage is written.
    """  # noqa: D301 - the backslash is for click
    from tapps_otel.cli.export import export

    file = None if output == "-" else Path(output)
    if force and file is None:
        refuse_usage("--force needs --output FILE")

    def write() -> Code:
        run = chosen_run(workflow_id, last=last, log_dir=log_dir)
        return export(run, form.value, file, force=force, log_dir=log_dir)

    finish(write)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a log line."""
    from tapps_otel.cli.schema import schema

    finish(schema)


@app.command("doctor")
def doctor(as_json: AsJson = False, log_dir: LogDir = None) -> None:
    """Check folder, disk, locks, settings, collector.

    Each is tried out, and what that leaves is removed again.
    """
    from tapps_otel.cli.doctor import doctor

    finish(lambda: doctor(as_json=as_json, log_dir=log_dir))


class DemoEngine(StrEnum):
    """Values of ``demo --on``."""

    POOL = "pool"
    DASK = "dask"
    RAY = "ray"


@app.command("demo")
def demo(
    engine: Annotated[
        DemoEngine | None,
        typer.Option(
            "--on", help="Execute steps in workers, and kill one of them first.", show_default=False
        ),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option(
            "--svg",
            metavar="FILE",
            help="Draw a picture of it: a new SVG file.",
            show_default=False,
        ),
    ] = None,
    log_dir: LogDir = None,
) -> None:
    """Watch a workflow be killed and resumed.

    It does real work on files, in a process that is killed in the middle of a step. It takes less
    than ten seconds, on Dask or Ray a little more.
    """
    from tapps_otel.cli.demo import demo

    finish(lambda: demo(svg=svg, engine=engine, log_dir=log_dir))


@app.command("docs")
def docs(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="A page.", show_default=False)
    ] = None,
) -> None:
    """Show the documentation: a page, or the list of pages."""
    from tapps_otel.cli.docs import docs

    finish(lambda: docs(topic))
