"""How two runs differ, as lines for people: the first divergence first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tapps_otel.report.history import error_text
from tapps_otel.report.lines import Line, Piece, columns, cut, labelled, took
from tapps_otel.report.text import counted, plain, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.past.changes import Change
    from tapps_otel.past.difference import RunDiff, StepDiff, StepSide

__all__ = ["difference_lines"]

_MOST: Final = 40  # rows of steps that differ
_MOST_TIMES: Final = 5
_LEAST_CHANGE: Final = 0.01  # of the time of a run: smaller changes of a step are not shown
_MOST_CHANGES: Final = 8  # of one value, where there is room; one in a row
_LONG: Final = 2_000  # columns of a line that no terminal limits
_SIGNS: Final = {"+": "good", "-": "bad", "~": "warn"}


def difference_lines(diff: RunDiff, *, wide: int | None, everything: bool = False) -> list[Line]:
    """Describe how the runs differ.

    :param wide: columns to fit; ``None``: no terminal
    :param everything: a row for each step that differs; otherwise many are summed up by name
    """
    lines = [*_head(diff), *_first(diff), *_others(diff, everything=everything), *_times(diff)]
    return [cut(line, wide or _LONG) for line in lines]


# -- the runs


def _head(diff: RunDiff) -> Iterator[Line]:
    a, b = diff.a, diff.b
    yield labelled("runs", f"{plain(a.workflow_id)} -> {plain(b.workflow_id)}", "strong")
    yield _both("workflow", plain(a.name) or "-", plain(b.name) or "-")
    yield _both("status", plain(a.status), plain(b.status))
    yield labelled("time", f"{took(a.duration_ns)} -> {took(b.duration_ns)}")
    yield _both("steps", str(a.steps), str(b.steps), f", {diff.same} alike")
    if a.executions != b.executions:
        yield _both("resumed", str(max(0, a.executions - 1)), str(max(0, b.executions - 1)))
    for label, found in (("inputs", diff.inputs), ("result", diff.result)):
        if label in diff.differs:
            yield from _values(label, found)
    if "error" in diff.differs:
        for side in (a, b):
            if side.error is not None:
                text = f"{plain(side.workflow_id)}: {error_text(side.error)}"
                yield labelled("error", text, "bad")
    for side in (a, b):
        if side.damage is not None:
            text = f"{plain(side.workflow_id)} is compared up to the damage of its log"
            yield labelled("damaged", text, "bad")
    if diff.equal:
        yield labelled("equal", "they differ in nothing but time", "good")


def _both(label: str, a: str, b: str, more: str = "") -> Line:
    if a == b:
        return labelled(label, f"{a}{more}")
    return labelled(label, f"{a} -> {b}{more}", "warn" if label == "status" else "")


def _values(label: str, found: Iterable[Change]) -> Iterator[Line]:
    """Yield where values differ, a line each."""
    changed = list(found)
    if not changed:
        yield labelled(label, "differ: large values, in files of their own", "warn")
    for number, one in enumerate(changed[:_MOST_CHANGES]):
        yield labelled("" if number else label, _change(one), "warn")
    if len(changed) > _MOST_CHANGES:
        yield labelled("", "and more")


def _change(change: Change) -> str:
    sides = ("nothing" if one is None else plain(one) for one in (change.before, change.after))
    return f"{plain(change.path)}  {' -> '.join(sides)}"


# -- the steps


def _first(diff: RunDiff) -> Iterator[Line]:
    """Yield the first divergence, in full."""
    first = diff.first
    if first is None:
        return
    yield Line()
    yield Line.of(("first divergence", "strong"))
    yield Line.of("  ", *_sign(first), (_name(first), "strong"), f"  {_where(first, diff)}")
    for text in _words(first, diff, brief=False):
        yield Line.of(f"    {text}")
    for label, found in (("inputs", first.inputs), ("result", first.result)):
        for change in found[:_MOST_CHANGES]:
            yield Line.of((f"    {label} ", "dim"), (_change(change), "warn"))


def _where(step: StepDiff, diff: RunDiff) -> str:
    sides = ((step.a, diff.a), (step.b, diff.b))
    places = (f"{side.position} of {run.steps}" for side, run in sides if side is not None)
    return f"step {' -> '.join(dict.fromkeys(places))}"


def _others(diff: RunDiff, *, everything: bool) -> Iterator[Line]:
    others = diff.steps[1:]
    if not others:
        return
    yield Line()
    yield Line.of(
        (f"{counted(len(others), 'more step')} that differ{'s' * (len(others) == 1)}", "strong")
    )
    if everything or len(others) <= _MOST:
        yield from columns(
            (
                [Line.of(*_sign(one), _name(one)), Piece(", ".join(_words(one, diff)))]
                for one in others
            ),
            indent=2,
        )
        return
    groups: dict[tuple[str, tuple[str, ...], str], list[StepDiff]] = {}
    for one in others:
        groups.setdefault((one.name, one.differs, _char(one)), []).append(one)
    rows = [_group_row(found, diff) for found in groups.values()]
    yield from columns(rows[:_MOST], indent=2)
    more = f", {len(rows) - _MOST} rows are left out" if len(rows) > _MOST else ""
    yield Line.of((f"  summed up by name{more}: --all shows every step", "dim"))


def _group_row(found: list[StepDiff], diff: RunDiff) -> list[Line | Piece]:
    first = found[0]
    name = _name(first) if len(found) == 1 else f"{plain(first.name)} x{len(found)}"
    if len(found) == 1:
        words = ", ".join(_words(first, diff))
    elif first.differs == ("presence",):
        words = _words(first, diff)[0].partition(",")[0]
    else:
        words = ", ".join(f"other {one}" for one in first.differs)
    return [Line.of(*_sign(first), name), Piece(words)]


def _char(step: StepDiff) -> str:
    return "+" if step.a is None else "-" if step.b is None else "~"


def _sign(step: StepDiff) -> list[tuple[str, str]]:
    char = _char(step)
    return [(f"{char} ", _SIGNS[char])]


def _name(step: StepDiff) -> str:
    """Return a step's id; both, if they differ."""
    ids = dict.fromkeys(plain(side.step_id) for side in (step.a, step.b) if side is not None)
    return " -> ".join(ids) or "''"


def _words(step: StepDiff, diff: RunDiff, *, brief: bool = True) -> list[str]:
    """Say what differs.

    :param brief: with the first place at which inputs and results differ
    """
    a, b = step.a, step.b
    if a is None or b is None:
        return [_alone(a or b, diff.b.workflow_id if a is None else diff.a.workflow_id)]
    words = []
    if "inputs" in step.differs:
        words.append(f"other inputs{_example(step.inputs) if brief else _not_stored(step.inputs)}")
    elif not brief:
        words.append("equal inputs")
    words += [f"other {one}" for one in ("code", "agent", "action") if one in step.differs]
    if "status" in step.differs:
        words.append(f"{plain(b.status)}, was {plain(a.status)}{_errors(a, b)}")
    elif "error" in step.differs:
        words.append(f"other error{_errors(a, b)}")
    if "reason" in step.differs:
        words.append(f"other reason: {plain(a.reason or '-')} -> {plain(b.reason or '-')}")
    if "attempts" in step.differs:
        words.append(f"{counted(b.attempts, 'attempt')}, was {a.attempts}")
    if "result" in step.differs:
        words.append(f"other result{_example(step.result) if brief else ''}")
    if "artifacts" in step.differs:
        words.append("other artifacts")
    return words


def _alone(side: StepSide | None, workflow_id: str) -> str:
    if side is None:
        return ""
    inside = f", with {counted(side.inside, 'step')} inside" if side.inside else ""
    return f"only in {plain(workflow_id)}{inside}"


def _example(found: tuple[Change, ...]) -> str:
    return f" ({shorten(_change(found[0]), 80)})" if found else ""


def _not_stored(found: tuple[Change, ...]) -> str:
    return (
        "" if found else " (the logs have only their digests: the setting capture_inputs logs them)"
    )


def _errors(a: StepSide, b: StepSide) -> str:
    texts = [error_text(one.error) for one in (a, b) if one.error is not None]
    return f": {' -> '.join(texts)}" if texts else ""


# -- time


def _times(diff: RunDiff) -> Iterator[Line]:
    least = max(diff.a.duration_ns, diff.b.duration_ns) * _LEAST_CHANGE
    changed = [one for one in diff.times[:_MOST_TIMES] if abs(one.b_ns - one.a_ns) >= least > 0]
    if not changed:
        return
    yield Line()
    yield Line.of(("time by step", "strong"), (" (largest changes)", "dim"))
    rows = []
    for one in changed:
        change = one.b_ns - one.a_ns
        sign = "+" if change > 0 else "-"
        name = plain(one.name) or "''"
        both = f"{took(one.a_ns)} -> {took(one.b_ns)}"
        rows.append([Piece(name), Piece(both), Piece(f"{sign}{took(abs(change))}", "dim")])
    yield from columns(rows, indent=2)
