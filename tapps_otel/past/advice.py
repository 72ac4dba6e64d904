"""What to do next with a run: a command where one can work, otherwise words. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.names import log_name
from tapps_otel.past.fold import RESOLVED
from tapps_otel.past.plan import questions_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tapps_otel.errors import Question
    from tapps_otel.past.fold import ChildRun, RunHistory

__all__ = [
    "RESUME_NOTE",
    "Advice",
    "how_to_answer",
    "how_to_resume",
    "import_path",
    "next_steps",
    "unresolved_place",
]

RESUME_NOTE: Final = "to resume this run: "  # begins the note on an exception that leaves a run
# The third-party executor whose runs can be resumed without the code that started them.
_RESUMABLE: Final = "tapps-agents"
# Refusals that a resume would meet again, and what `resolve` can settle them with.
_RESOLVABLE: Final = {
    # The result first: whoever copies the first line must not make the step do its work twice.
    "StepInterruptedError": ("--result JSON", "--rerun"),
    "InterruptedTooOftenError": ("--result JSON", "--rerun"),
    "FailureDetailError": ("--result JSON", "--rerun"),
    "StoredResultError": ("--rerun",),
}


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
    if executor == "langgraph":
        return Advice(_langgraph_lines(workflow), is_command=False)
    if workflow.get("resumable") is False:
        words = "run it again, as a new run: what is known of it are spans, which resume nothing"
        return Advice(words, is_command=False)
    if import_path(workflow) is not None or executor == _RESUMABLE:
        return Advice(f"resume {log_name(workflow_id)}")
    words = "run the code that started it again"
    words += f", with workflow_id={workflow_id!r}" if executor is None else ", under the same id"
    return Advice(words, is_command=False)


def _langgraph_lines(workflow: Mapping[str, Any]) -> str:
    """Return how LangGraph resumes a turn: its checkpointer has the state."""
    thread = workflow.get("thread")
    if thread is None or not workflow.get("checkpointer"):
        lacks = "thread_id" if thread is None else "checkpointer"
        return f"run the graph again: without a {lacks}, LangGraph resumes nothing"
    config = {"configurable": {"thread_id": thread}}
    return (
        f"in Python, graph.invoke(None, {config!r}); "
        "to answer an interrupt, Command(resume=ANSWER) in place of None"
    )


def import_path(workflow: Mapping[str, Any]) -> str | None:
    """Return the import path of a run's workflow; ``None`` where nothing can be imported.

    A part in angle brackets is no name: ``<locals>``, ``<stdin>``.
    """
    path = workflow.get("path")
    return path if isinstance(path, str) and ":" in path and "<" not in path else None


def next_steps(history: RunHistory) -> list[Advice]:
    """Return what to do next with a run that no process executes, or what to choose from."""
    if history.status in {"completed", "damaged"} or not history.executions:
        return []
    if history.status in {"paused", "answered"} and not history.foreign:
        return _of_paused(history)
    child = _refusing(history)
    if child is not None:
        return [_to_show(child)]
    step_id = _unresolved(history)
    if step_id is None:
        return [how_to_resume(history.workflow_id, history.workflow)]
    settle = f"resolve {log_name(history.workflow_id)} {shlex.quote(step_id)}"
    return [Advice(f"{settle} {how}") for how in _RESOLVABLE[_refusal(history)]]


def _of_paused(history: RunHistory) -> list[Advice]:
    """Return how the questions of a run are answered, and how it is resumed."""
    questions = questions_of(history)
    answers = [how_to_answer(one) for one in questions if one.question is not None]
    times = [one.until for one in questions if one.until is not None]
    resume = how_to_resume(history.workflow_id, history.workflow)
    if history.status == "answered":
        return [resume, *answers]
    if not questions:  # it waits for a run that one of its steps called
        paused = (one.child for one in history.steps if one.child and one.status == "paused")
        return [*map(_to_show, paused), resume]
    if times:
        words = f"from {min(times)} on: tapps-otel resume --due"
        answers.append(Advice(words, is_command=False))
    return answers


def how_to_answer(question: Question) -> Advice:
    """Return how a question is answered."""
    return Advice(
        f"answer {shlex.quote(question.workflow_id)} {shlex.quote(question.step_id)} --json JSON"
    )


def unresolved_place(history: RunHistory) -> str | None:
    """Return in words what must be resolved before the run can continue."""
    child = _refusing(history)
    return _unresolved(history) if child is None else f"a step of run {child.workflow_id}"


def _refusing(history: RunHistory) -> ChildRun | None:
    """Return the child run in which a step must be resolved before the run can continue."""
    if _refusal(history) not in _RESOLVABLE:
        return None
    message = (history.error or {}).get("message")  # which names the run, too
    failed = (step for step in history.steps if (step.last.error or {}).get("message") == message)
    return next((step.child for step in failed if step.child is not None), None)


def _to_show(child: ChildRun) -> Advice:
    text = f"show {shlex.quote(child.workflow_id)}"
    if child.log_dir is None:
        return Advice(text)
    return Advice(f"tapps-otel {text} --log-dir {shlex.quote(child.log_dir)}", is_command=False)


def _unresolved(history: RunHistory) -> str | None:
    """Return the id of the step that must be resolved before the run can continue."""
    attributes = (history.error or {}).get("attributes")
    if _refusal(history) not in _RESOLVABLE or not isinstance(attributes, dict):
        return None
    step_id, end_seq = attributes.get("step_id"), history.executions[-1].end_seq
    resolved = {
        one.step_id for one in history.annotations if one.name == RESOLVED and one.seq > end_seq
    }
    return step_id if isinstance(step_id, str) and step_id not in resolved else None


def _refusal(history: RunHistory) -> str:
    """Return the class of the error that ended the run; of this package, without the module."""
    return str((history.error or {}).get("type", "")).removeprefix("tapps_otel.errors.")
