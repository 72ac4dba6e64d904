"""`fork`: a new run that begins with the first steps of another one."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import resume_hint
from tapps_otel.cli.run import read_inputs
from tapps_otel.cli.terminal import out, write_json
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

__all__ = ["fork"]


def fork(
    workflow_id: str,
    from_step: str,
    inputs: str | None,
    new_workflow_id: str | None,
    *,
    as_json: bool,
    log_dir: Path | None,
) -> Code:
    """Make a fork of a run.

    :param inputs: the arguments to change: JSON, ``@FILE``, or ``-`` for standard input
    """
    from tapps_otel.run.forking import fork as make
    from tapps_otel.run.lookup import load, store_of

    changes = None if inputs is None else read_inputs(inputs)
    if changes is not None and not isinstance(changes, dict):
        refuse_usage("--input must be an object of arguments: those to change, by name")
    made = make(
        workflow_id,
        from_step=from_step,
        inputs=changes,
        new_workflow_id=new_workflow_id,
        log_dir=log_dir,
    )
    if as_json:
        write_json({"workflow_id": made})
        return Code.OK
    taken = sum(step.stored or step.handled for step in load(made, log_dir).steps)
    words = f"  takes over {counted(taken, 'finished step')} of run {plain(workflow_id)}"
    out().say(Line.of((made, "strong"), words), *resume_hint(store_of(log_dir), made, log_dir))
    return Code.OK
