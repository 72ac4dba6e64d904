"""``run``: start a run, or continue the named one."""

from __future__ import annotations

import inspect
import json
import sys
from collections import OrderedDict
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from tapps_otel import clock
from tapps_otel.cli.codes import Code
from tapps_otel.cli.execution import execute
from tapps_otel.cli.loading import load_workflow
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.errors import WorkflowInputError
from tapps_otel.report.text import counted

if TYPE_CHECKING:
    from tapps_otel.run.workflow import Workflow

__all__ = ["read_inputs", "run"]


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
    data = read_inputs(inputs)
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


def read_inputs(text: str) -> Any:
    """Read the JSON of ``--input``: given as it is, as ``@FILE``, or on standard input."""
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
    if isinstance(data, list):
        data = _by_name(flow, data)
    if not isinstance(data, dict):
        refuse_usage("--input must be an object of arguments, or a list of them")
    try:
        return _validated(flow, data)
    except _NOT_FOR_PYDANTIC:
        return _as_stored(flow, data)
    except TypeError as error:  # an argument is missing
        raise WorkflowInputError(f"the input does not fit {flow.name}: {error}", "$") from None


# Annotations that cannot be evaluated here, or of which pydantic knows no schema.
_NOT_FOR_PYDANTIC: Final = (NameError, AttributeError, PydanticUserError)


def _validated(
    flow: Workflow[..., Any], data: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert what a person wrote: unlike stored values, it has to be checked."""
    signature = inspect.signature(flow, eval_str=True)
    if unknown := data.keys() - signature.parameters.keys():
        raise TypeError(f"it has no parameter {sorted(unknown)}")
    values = {
        name: _value(flow, parameter, data[name])
        for name, parameter in signature.parameters.items()
        if name in data
    }
    bound = inspect.BoundArguments(signature, OrderedDict(values))
    signature.bind(*bound.args, **bound.kwargs)
    return bound.args, bound.kwargs


def _value(flow: Workflow[..., Any], parameter: inspect.Parameter, value: Any) -> Any:
    hint = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        hint = GenericAlias(tuple, (hint, ...))
    elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
        hint = GenericAlias(dict, (str, hint))
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, ("$", parameter.name, *first["loc"])))
        message = f"the input does not fit {flow.name}: {path}: {first['msg']}"
        raise WorkflowInputError(message, path) from None


def _as_stored(
    flow: Workflow[..., Any], data: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert arguments as they are written in a log."""
    from tapps_otel.run.codecs.native import to_json

    try:
        return flow.signature.call_with(to_json(data))
    except WorkflowInputError as error:
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
