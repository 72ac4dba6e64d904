"""Child runs: a workflow that a step calls with an id is a run of its own.

For the run that calls it, it is a step: the id is the step's key, so that a call with arguments and
a resume by id are one record. For itself it is a run like any other, with a log, a lease, and the
rules of resume; nothing but its caller's name in its log, and its place in the trace, tells that
it was called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.names import ATTR, check_workflow_id
from tapps_otel.run.current_recorder import recorder_here
from tapps_otel.run.policy import Policy
from tapps_otel.run.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["child_run", "log_dir_here"]

# However often its process dies in it: the steps inside have guards of their own.
_POLICY: Final = Policy(max_interruptions=sys.maxsize)


def child_run(
    fn: Callable[..., Any],
    body: Callable[..., Any],
    *,
    name: str,
    ignore: tuple[str, ...],
    workflow_id: str,
    log_dir: Path | str | None,
) -> Step[..., Any]:
    """The step as which the current run calls another one.

    :param fn: the workflow's function; the result is stored by its annotations
    :param body: executes the run, or takes its stored result
    :param name: of the workflow
    :param log_dir: of the called run, if it has one of its own
    :raises InvalidIdError: the id cannot name a run
    """
    attributes = {ATTR.CHILD_WORKFLOW_ID: check_workflow_id(workflow_id)}
    if log_dir is not None and (folder := Path(log_dir).absolute()) != log_dir_here():
        attributes[ATTR.CHILD_LOG_DIR] = str(folder)
    return Step(
        fn,
        name=name,
        ignore=ignore,
        policy=_POLICY,
        key=workflow_id,
        body=body,
        attributes=attributes,
    )


def log_dir_here() -> Path | None:
    """The folder of the current run's log, where child runs have theirs; ``None`` outside a run."""
    run = recorder_here()
    return None if run is None or run.detached else run.log_dir
