"""``run``: start a run, or continue the named one."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapps_otel import clock
from tapps_otel.cli.codes import Code
from tapps_otel.cli.execution import execute
from tapps_otel.cli.loading import load_workflow
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.errors import WorkflowInputError
from tapps_otel.report.text import counted

if TYPE_CHECKING:
    from tapps_otel.run.workflow import Workflow

__all__ = ["run"]


def run(
    target: str, inputs: str, workflow_id: str | None, *, log_dir: Path | None, quiet: bool
) -> Code:
    """Run a workflow.

    :param target: ``package.module:function`` or ``file.py:function``
    :param inputs: JSON, ``@FILE``, or ``-`` for standard input
    """
    from tapps_otel.names import check_workflow_id, new_workflow_id

    if workflow_id is not None:
        check_workflow_id(workflow_id)
    data = _read_inputs(inputs)
    flow = load_workflow(target)
    if flow is None:
        return Code.USAGE
    args, kwargs = _arguments(flow, data)
    name = workflow_id or new_workflow_id(flow.name, clock.timestamp(clock.time_ns()))
    return execute(
        lambda folder: flow.options(workflow_id=name, log_dir=folder)(*args, **kwargs),
        name,
        flow.signature.result_json,
        log_dir=log_dir,
        quiet=quiet,
    )


def _read_inputs(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = _read_file(text[1:])
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        refuse_usage(
            f"--input is not JSON: {error}. Give an object of arguments, as "
            """'{"page": 3}', or a list of them"""
        )


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _read_file(name: str) -> str:
    from tapps_otel.log import files

    try:
        with files.system().open_read(Path(name)) as file:
            return file.read().decode()
    except (OSError, ValueError) as error:
        refuse_usage(f"--input cannot be read: {error}")


def _arguments(flow: Workflow[..., Any], data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert JSON to the workflow's arguments, by its annotations."""
    from tapps_otel.run.codecs.native import to_json

    if isinstance(data, list):
        data = _by_name(flow, data)
    if not isinstance(data, dict):
        refuse_usage("--input must be an object of arguments, or a list of them")
    try:
        return flow.signature.call_with(to_json(data))
    except WorkflowInputError as error:
        # The library speaks of inputs that it reads from a log.
        message = str(error).replace("the stored inputs do not fit", "the input does not fit")
        raise WorkflowInputError(message, error.path) from None


def _by_name(flow: Workflow[..., Any], values: list[Any]) -> dict[str, Any]:
    names = list(inspect.signature(flow).parameters)
    if len(values) > len(names):
        raise WorkflowInputError(
            f"{flow.name} takes {counted(len(names), 'argument')} ({', '.join(names)}), "
            f"not {len(values)}",
            "$",
        )
    return dict(zip(names, values, strict=False))
