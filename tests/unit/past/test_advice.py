"""What to do next with a run, by what its log says."""

from __future__ import annotations

from typing import Any

import pytest

from histories import Story
from logs import ID
from tapps_otel.past.advice import Advice, how_to_resume, next_steps, unresolved_place
from tapps_otel.past.fold import RESOLVED

FILE = {"name": "flow", "path": "flow.py:flow"}


def ended(error: str | None = None, *, status: str = "failed", **attributes: Any) -> Story:
    """A run whose step ``pay`` was open when it ended."""
    story = Story()
    story.execution(workflow=FILE)
    story.start("pay")
    fields = {} if error is None else {"error": {"type": error, "attributes": attributes}}
    story.end(status, **fields)
    return story


@pytest.mark.parametrize(
    ("workflow", "advice"),
    [
        (FILE, Advice(f"resume {ID}")),
        ({"executor": "tapps-agents"}, Advice(f"resume {ID}")),
        ({"path": "x:<locals>.f"}, f"started it again, with workflow_id={ID!r}"),
        ({"executor": "another"}, "started it again, under the same id"),
        ({}, f"started it again, with workflow_id={ID!r}"),
    ],
)
def test_a_run_is_resumed_by_a_command_where_one_can_work(
    workflow: dict[str, Any], advice: Advice | str
) -> None:
    found = how_to_resume(ID, workflow)

    if isinstance(advice, Advice):
        assert found == advice
    else:
        assert found == Advice(f"run the code that {advice}", is_command=False)


@pytest.mark.parametrize(
    ("workflow", "text"),
    [
        (
            {"thread": "t", "checkpointer": "MemorySaver"},
            (
                "in Python, graph.invoke(None, {'configurable': {'thread_id': 't'}}); "
                "to answer an interrupt, Command(resume=ANSWER) in place of None"
            ),
        ),
        (
            {"thread": "t"},
            "run the graph again: without a checkpointer, LangGraph resumes nothing",
        ),
        (
            {"checkpointer": "MemorySaver"},
            "run the graph again: without a thread_id, LangGraph resumes nothing",
        ),
    ],
)
def test_a_run_of_langgraph_is_resumed_by_its_checkpointer(
    workflow: dict[str, Any], text: str
) -> None:
    found = how_to_resume(ID, {"executor": "langgraph", **workflow})

    assert found == Advice(text, is_command=False)


def test_what_is_known_by_spans_alone_is_run_again() -> None:
    assert how_to_resume(ID, {"resumable": False, "path": "flow.py:flow"}) == Advice(
        "run it again, as a new run: what is known of it are spans, which resume nothing",
        is_command=False,
    )


def test_nothing_is_next_for_a_run_that_completed_or_never_began() -> None:
    assert next_steps(ended(status="completed").history) == []
    assert next_steps(Story().history) == []


@pytest.mark.parametrize("status", ["failed", "interrupted", "cancelled"])
def test_a_run_that_ended_otherwise_is_resumed(status: str) -> None:
    history = ended(status=status).history

    assert next_steps(history) == [Advice(f"resume {ID}")]
    assert unresolved_place(history) is None


@pytest.mark.parametrize(
    ("error", "choices"),
    [
        ("tapps_otel.errors.StepInterruptedError", ["--result JSON", "--rerun"]),
        ("tapps_otel.errors.StoredResultError", ["--rerun"]),
    ],
)
def test_a_refusal_is_resolved_until_it_has_been(error: str, choices: list[str]) -> None:
    story = ended(error, step_id="pay")

    assert next_steps(story.history) == [Advice(f"resolve {ID} pay {choice}") for choice in choices]
    assert unresolved_place(story.history) == "pay"

    story.add("annotation", step_id="pay", name=RESOLVED)
    assert next_steps(story.history) == [Advice(f"resume {ID}")]


@pytest.mark.parametrize("attributes", [{}, {"step_id": 5}])
def test_a_refusal_that_names_no_step_is_answered_by_a_resume(attributes: dict[str, Any]) -> None:
    story = ended("tapps_otel.errors.StepInterruptedError", **attributes)
    assert next_steps(story.history) == [Advice(f"resume {ID}")]


@pytest.mark.parametrize(
    ("log_dir", "advice"),
    [
        (None, Advice("show order-17")),
        ("their logs", Advice("tapps-otel show order-17 --log-dir 'their logs'", is_command=False)),
    ],
)
def test_a_refusal_of_a_called_run_leads_there(log_dir: str | None, advice: Advice) -> None:
    error = {"type": "tapps_otel.errors.StepInterruptedError", "message": "order-17: pay"}
    child = {"tapps.child.workflow_id": "order-17"}
    if log_dir is not None:
        child["tapps.child.log_dir"] = log_dir
    story = Story()
    story.execution(workflow=FILE)
    story.start("order", attributes=child)
    story.fail("order", error=error)
    story.end("failed", error=error)

    assert next_steps(story.history) == [advice]
    assert unresolved_place(story.history) == "a step of run order-17"


# ---------------------------------------------------------------- runs that wait


def waiting(**question: Any) -> Story:
    """A paused run with an open question, whose step is ``ask``."""
    story = Story()
    story.execution(workflow=FILE)
    story.start("ask", **question)
    story.end("paused")
    return story


def test_a_question_is_answered_by_a_command() -> None:
    assert next_steps(waiting(question="Publish?").history) == [
        Advice(f"answer {ID} ask --json JSON")
    ]


def test_a_timer_is_resumed_once_it_is_due() -> None:
    until = "2026-12-01T00:00:00.000000000Z"
    found = next_steps(waiting(until=until).history)

    assert found == [Advice(f"from {until} on: tapps-otel resume --due", is_command=False)]


def test_an_answered_run_is_resumed() -> None:
    story = waiting(question="Publish?")
    story.finish("ask", True, answered={"by": "me"})

    assert story.history.status == "answered"
    assert next_steps(story.history) == [Advice(f"resume {ID}")]


def test_a_run_that_waits_for_another_shows_it() -> None:
    story = Story()
    story.execution(workflow=FILE)
    attributes = {"tapps.child.workflow_id": "other run", "tapps.child.log_dir": "/logs"}
    story.start("call", attributes=attributes)
    story.fail("call", "paused")
    story.end("paused")

    assert next_steps(story.history) == [
        Advice("tapps-otel show 'other run' --log-dir /logs", is_command=False),
        Advice(f"resume {ID}"),
    ]
