"""Answers to the questions of paused runs: the ends of their pauses, written by whoever answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapps_otel.errors import AnswerError, RunConflictError
from tapps_otel.names import log_name
from tapps_otel.past.answer_schema import find_misfit
from tapps_otel.redact import rules_here
from tapps_otel.run.codecs.native import MOST_TEXT, NotStorableError, check_text, to_json
from tapps_otel.run.decision import WHY_REFUSED, is_refused_secret, leased, put_result, writing
from tapps_otel.run.ends_from_history import answer_to
from tapps_otel.run.lookup import find
from tapps_otel.run.person import person

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.past.fold import RunHistory, StepHistory

__all__ = ["answer"]


def answer(
    workflow_id: str,
    value: Any,
    *,
    step: str | None = None,
    by: str | None = None,
    reason: str | None = None,
    log_dir: Path | str | None = None,
) -> str:
    """Answer a question of a paused run; its resume then returns the answer from ``pause()``.

    The log has the answer as the end of that pause, with who gave it, when and from where. The
    code of the run is not needed: the type of the answer is in its log. Nothing is resumed.

    :param value: JSON values, or what pydantic can write as JSON
    :param step: id of the pause; needed where the run asks several questions
    :param by: who answers; by default, the user of this process
    :param reason: for the log
    :returns: id of the pause
    :raises RunNotFoundError: there is no such run
    :raises RunBusyError: a process executes it
    :raises RunConflictError: it waits for no answer; no such pause; the pause was answered; it
        asks several questions, and ``step`` is missing
    :raises AnswerError: the answer does not fit the question, or is a secret, and those are not
        stored (``redact_results``)
    :raises ValueError: ``by`` or ``reason`` has more than 16 KiB
    :raises LogDamagedError: the log was changed; nothing was written
    :raises EncryptionKeyError: values of the run are encrypted with a key that is not configured
    :raises LogWriteError: it cannot be written
    """
    for text, what in ((by, "by"), (reason, "the reason of an answer")):
        if text is not None:
            check_text(text, what, most=MOST_TEXT)
    store, workflow_id = find(workflow_id, log_dir)
    store.summary(workflow_id)  # a run that does not exist gets no lease file
    with leased(store, workflow_id) as lease, writing(store, workflow_id, lease) as (fold, writer):
        found = _question(fold.history, step)
        data = _checked(found, value)
        rules, here = rules_here(), person()
        event = answer_to(fold.history, found, {"by": rules.text(by or str(here["user"])), **here})
        if reason is not None:
            event.reason = rules.text(reason)
        put_result(event, data, store)
        writer.append(event, sync=True)
    return found.step_id


def _question(history: RunHistory, step_id: str | None) -> StepHistory:
    """The pause that an answer is for.

    :raises RunConflictError: there is none, or more than one
    """
    name = history.workflow_id
    found = None if step_id is None else history.by_id.get(step_id)
    if found is not None and found.pause is not None and found.last.end_seq:
        raise RunConflictError(f"step {step_id!r} of run {name!r} {_how_it_ended(found)}")
    asking = [one for one in history.waiting if one.pause and one.pause.question is not None]
    named = ", ".join(repr(one.step_id) for one in asking[:20])
    if step_id is not None:
        if found in asking:
            return found
        has = "has no step" if found is None else "asks nothing in step"
        where = f"It asks in {named}" if asking else "It asks nothing"
        raise RunConflictError(f"run {name!r} {has} {step_id!r}. {where}")
    if len(asking) == 1:
        return asking[0]
    if asking:
        raise RunConflictError(
            f"run {name!r} asks {len(asking)} questions: say which is answered, of {named}. "
            f"`tapps-otel show {log_name(name)}` shows them"
        )
    if history.waiting:
        raise RunConflictError(f"run {name!r} waits for a time, and asks nothing")
    answered = [one for one in history.steps if one.answered]
    if history.status == "answered" and answered:
        last = max(answered, key=lambda one: one.last.end_seq)
        raise RunConflictError(
            f"run {name!r}: its question in step {last.step_id!r} {_how_it_ended(last)}"
        )
    raise RunConflictError(f"run {name!r} asks nothing: {_what_it_does(history)}")


def _what_it_does(history: RunHistory) -> str:
    """What a run that asks nothing does, to follow that."""
    if history.status != "paused":
        # No process executes it: the caller has its lease.
        return f"it is {'interrupted' if history.status == 'running' else history.status}"
    called = [one.child for one in history.steps if one.child and one.status == "paused"]
    named = ", ".join(
        repr(one.workflow_id) + (f" (in {one.log_dir})" if one.log_dir else "") for one in called
    )
    return f"it waits for what its steps have called, and those runs ask: answer {named}"


def _how_it_ended(step: StepHistory) -> str:
    if step.answered is None:
        return f"is {step.status}: it no longer waits for an answer"
    by, host = step.answered.get("by"), step.answered.get("host")
    return f"was answered by {by} on {host}: an answer is given once"


def _checked(step: StepHistory, value: Any) -> bytes:
    """The answer as JSON.

    :raises AnswerError: it is not JSON, not of the type that is asked for, or a secret
    """
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        plain = to_jsonable_python(value)
        data = to_json(plain)
    except NotStorableError as error:
        raise AnswerError(step.step_id, error.path, error.problem) from None
    except (PydanticSerializationError, ValueError) as error:
        raise AnswerError(step.step_id, "$", str(error)) from None
    misfit = find_misfit(None if step.pause is None else step.pause.schema, plain)
    if misfit is not None:
        raise AnswerError(step.step_id, *misfit)
    if is_refused_secret(data):
        raise AnswerError(step.step_id, "$", WHY_REFUSED)
    return data
