"""What must be true of the log of a plan's run, whatever happened to the run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from plans import NAMES, Call, Due, Run, all_of

Events = list[dict[str, Any]]


def check_pairs(events: Events) -> None:
    """Every attempt that started has one end, inside its scope's, before the next one starts.

    Pauses stay open when their run ends, and while the steps around them run again.
    """
    running: dict[str, int] = {}
    waiting: set[str] = set()
    for one in events:
        kind, step_id = one["event_type"], one.get("step_id", "")
        if kind == "step_start":
            assert step_id not in running, f"{step_id} is started while it runs"
            running[step_id] = one["attempt"]
            if is_pause(one):
                waiting.add(step_id)
        elif kind in {"step_finish", "step_fail", "step_skip"}:
            assert running.pop(step_id, None) == one["attempt"], f"{step_id} ends, and was not open"
            waiting.discard(step_id)
            inside = [
                other
                for other in running
                if other.startswith(f"{step_id}/") and other not in waiting
            ]
            assert not inside, f"{step_id} ends before {inside}"
        elif kind == "workflow_end":
            left = set(running) - (waiting if one["status"] in {"paused", "failed"} else set())
            assert not left, f"the workflow ends before {left}"


def is_pause(start: dict[str, Any]) -> bool:
    """Whether a step is a pause, by its start."""
    return "question" in start or "until" in start


def finished(events: Events) -> Counter[str]:
    """How often each step has finished, by its label, or the id of the run that it calls."""
    return Counter(
        _label(start, end) for start, end in _attempts(events) if end["event_type"] != "step_fail"
    )


def _attempts(events: Events) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The first and the last event of each attempt that has ended."""
    starts: dict[str, dict[str, Any]] = {}
    found = []
    for one in events:
        if one["event_type"] == "step_start":
            starts[one["step_id"]] = one
        elif one["event_type"] in {"step_finish", "step_fail", "step_skip"}:
            found.append((starts[one["step_id"]], one))
    return found


def _label(start: dict[str, Any], end: dict[str, Any]) -> str:
    if is_pause(start):
        return str(start.get("question", start["step"])).removesuffix("?")
    if "key" in start:  # of a run that it calls
        return str(start["key"])
    given = end["result"]
    return str(given if isinstance(given, str) else given[0])


def check_once(plan: Run, events: Events, bodies: Counter[str], stray: int = 0) -> None:
    """Nothing finished is done again beyond the rules, and no body runs unrecorded.

    :param bodies: how often the body of each step without steps inside was run, by label
    """
    due = Due(stray).add(plan.inside)
    started: Counter[str] = Counter()
    ended: set[str] = set()
    for one in events:
        step_id = one.get("step_id", "")
        if one["event_type"] == "step_start":
            assert step_id not in ended, f"{step_id} is done, and runs again"
            started[one["step"]] += "origin" not in one
        elif one["event_type"] in {"step_finish", "step_skip"}:
            ended.add(step_id)
    done = finished(events)
    for what, least in due.least.items():
        most = due.most[what]
        assert least <= done[what] <= most, f"{what}: {done[what]}, {least} to {most}"
    for name in NAMES:
        run = sum(
            bodies[node.label]
            for node in all_of(plan)
            if isinstance(node, Call) and node.name == name
        )
        assert run <= started[name], f"bodies of {name}: {run}, starts: {started[name]}"


def check_handled(events: Events) -> set[str]:
    """A failure after which its scope made an ordered call, in one execution, stays.

    :returns: the steps that failed so, and that no failure of a step around them undid
    """
    open_failures: dict[str, list[str]] = {}  # of a scope: step ids, in this execution
    handled: set[str] = set()
    for one in events:
        kind, step_id = one["event_type"], one.get("step_id", "")
        scope = step_id.rpartition("/")[0]
        if kind == "workflow_resume":
            open_failures.clear()
        elif kind == "step_start":
            assert step_id not in handled, f"the failure of {step_id} was handled; it runs again"
            failed = open_failures.get(scope, [])
            if step_id in failed:  # in a fork, which has all executions of its run in one
                failed.remove(step_id)
            if "order" in one:
                handled |= set(open_failures.pop(scope, []))
        elif kind == "step_fail":
            open_failures.pop(step_id, None)  # its attempt is over
            handled -= set(one.get("caused_by", [])) | _undone_by(one, handled)
            if one["status"] in {"failed", "timeout"} and "retry_in_ns" not in one:
                open_failures.setdefault(scope, []).append(step_id)
        elif kind == "workflow_end":
            handled -= set(one.get("caused_by", []))
    return handled


def finished_so_far(events: Events) -> set[str]:
    """Steps that have finished, and that no failure of a step around them undid."""
    done: set[str] = set()
    for one in events:
        if one["event_type"] in {"step_finish", "step_skip"}:
            done.add(one["step_id"])
        elif one["event_type"] == "step_fail":
            done -= _undone_by(one, done)
    return done


def _undone_by(end: dict[str, Any], ended: set[str]) -> set[str]:
    """What is to be done anew: all that ended inside a step that failed by itself."""
    if end["status"] != "failed" or "caused_by" in end:
        return set()
    return {step_id for step_id in ended if step_id.startswith(f"{end['step_id']}/")}
