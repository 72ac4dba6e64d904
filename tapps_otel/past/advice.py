"""What to do next with a run: a command where one can work, otherwise words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.names import log_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RESUME_NOTE", "Advice", "how_to_resume", "import_path"]

RESUME_NOTE: Final = "to resume this run: "  # begins the note on an exception that leaves a run
# The third-party executor whose runs can be resumed without the code that started them.
_RESUMABLE: Final = "tapps-agents"


class Advice(NamedTuple):
    """One thing to do next.

    :ivar text: the arguments of a command, as ``resume ID``, or what to do, in words; it may
        hold text of a log
    """

    text: str
    is_command: bool = True


def how_to_resume(workflow_id: str, workflow: Mapping[str, Any]) -> Advice:
    """Tell how a run is resumed.

    :param workflow: the field of that name in the log
    """
    executor = workflow.get("executor")
    if import_path(workflow) is not None or executor == _RESUMABLE:
        return Advice(f"resume {log_name(workflow_id)}")
    words = "run the code that started it again"
    words += f", with workflow_id={workflow_id!r}" if executor is None else ", under the same id"
    return Advice(words, is_command=False)


def import_path(workflow: Mapping[str, Any]) -> str | None:
    """Return the import path of a run's workflow; ``None`` where nothing can be imported.

    A part in angle brackets is no name: ``<locals>``, ``<stdin>``.
    """
    path = workflow.get("path")
    return path if isinstance(path, str) and ":" in path and "<" not in path else None
