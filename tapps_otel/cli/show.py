"""``show``: a run on one screen, or one of its steps whole."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tapps_otel.cli.codes import Code
from tapps_otel.cli.hints import advice_for, advice_text, next_lines
from tapps_otel.cli.terminal import out, say_error, write_json
from tapps_otel.cli.usage import refuse_usage
from tapps_otel.past.advice import Advice
from tapps_otel.report import history as report
from tapps_otel.report.lines import Line, labelled
from tapps_otel.report.steps import Choice, Steps
from tapps_otel.report.text import counted, few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.log.event import Event
    from tapps_otel.log.store import Store
    from tapps_otel.past.captured import CapturedSpan
    from tapps_otel.past.fold import Annotation, RunHistory, StepHistory
    from tapps_otel.run.reading import Reading

__all__ = ["Choice", "show", "show_step"]

_CHILDREN: Final = 3  # child runs of which the command to show them is given


def show(
    workflow_id: str, choice: Choice, *, verbose: bool, as_json: bool, log_dir: Path | None
) -> Code:
    """Show a run, as far as its log can be read.

    :param workflow_id: the name of its log
    :param verbose: all texts whole, every execution and annotation, and each step by itself
    """
    from tapps_otel.report.run_screen import Screen, run_screen
    from tapps_otel.run.lookup import store_of
    from tapps_otel.run.reading import read_run

    store = store_of(log_dir)
    if as_json:
        found = read_run(store, workflow_id)
        write_json(_json(found, choice))
        return _code(found)
    keep_values = (lambda _: True) if verbose else None
    found, steps = _read(store, workflow_id, choice, keep_values=keep_values)
    sections = run_screen(Screen(steps, choice, found.holder, out().width, verbose))
    if verbose:
        sections += _each_step(store, steps, choice)
    _say([*sections, [*_end(found, log_dir)]])
    return _code(found)


def show_step(
    workflow_id: str, step_id: str, *, verbose: bool, as_json: bool, log_dir: Path | None
) -> Code:
    """Show one step of a run, whole.

    :param step_id: its id, or its name, if no other step has it
    :param verbose: values and stacks whole, however long they are
    """
    from tapps_otel.past.captured import CapturedSpans
    from tapps_otel.report.one_step import Detail, spans_of, step_screen
    from tapps_otel.run.lookup import blobs_of, store_of

    store = store_of(log_dir)
    spans = CapturedSpans()

    def is_meant(event: Event) -> bool:
        return step_id in {event.step_id, event.step}

    found, steps = _read(
        store, workflow_id, Choice(pattern=step_id), keep_values=is_meant, see=spans.see
    )
    record = _find(found.history, step_id)
    inside = spans_of((one.span_id for one in record.attempts), spans)
    notes = _notes_by_step(found.history).get(record.step_id, [])
    if as_json:
        write_json(_step_json(record, found.history, notes, inside))
    else:
        by_time = next(one for one in steps.timeline.steps if one.step_id == record.step_id)
        blob = blobs_of(store, workflow_id).get
        _say(step_screen(Detail(found.history, by_time, record, inside, notes, blob, verbose)))
    return _code(found)


def _read(
    store: Store,
    workflow_id: str,
    choice: Choice,
    *,
    keep_values: Callable[[Event], bool] | None = None,
    see: Callable[[Event], None] | None = None,
) -> tuple[Reading, Steps]:
    """Read a run in bounded memory; what is asked for is kept."""
    from tapps_otel.past.long_run import LongFold
    from tapps_otel.past.timeline import make_timeline
    from tapps_otel.run.reading import read_run

    fold = LongFold(
        workflow_id,
        is_chosen=None if choice.is_all and not choice.everything else choice.accepts,
        keep_chosen=choice.everything,
        keep_values=keep_values,
    )
    found = read_run(store, workflow_id, fold=fold, see=see)
    made = make_timeline(found.history, now_ns=found.now_ns, log=found.log)
    return found, Steps(found.history, made, fold.summed_up, fold.chosen)


def _find(history: RunHistory, step_id: str) -> StepHistory:
    """Return the step of this id, or of this name, if no other has it."""
    step = history.by_id.get(step_id)
    if step is not None:
        return step
    named = [one for one in history.by_id.values() if one.name == step_id]
    if len(named) != 1:
        _refuse_step(step_id, history, named)
    return named[0]


def _refuse_step(step_id: str, history: RunHistory, named: list[StepHistory]) -> NoReturn:
    name, others = history.workflow_id, named or history.steps
    which = few([repr(one.step_id) for one in others], 10) or "none"
    refuse_usage(
        f"run {name!r} has {'several steps named' if named else 'no step'} {step_id!r}. "
        f"{'Their ids' if named else 'Its steps'}: {which}"
    )


def _each_step(store: Store, steps: Steps, choice: Choice) -> Iterator[list[Line]]:
    from tapps_otel.report.one_step import Detail, step_screen
    from tapps_otel.run.lookup import blobs_of

    history = steps.history
    blob, notes_of = blobs_of(store, history.workflow_id).get, _notes_by_step(history)
    for one in steps.timeline.steps:
        record = history.by_id[one.step_id]
        if choice.accepts(record):
            notes = notes_of.get(one.step_id, [])
            yield from step_screen(Detail(history, one, record, [], notes, blob, verbose=True))


def _notes_by_step(history: RunHistory) -> dict[str | None, list[Annotation]]:
    found: dict[str | None, list[Annotation]] = {}
    for note in history.annotations:
        found.setdefault(note.step_id, []).append(note)
    return found


def _say(sections: list[list[Line]]) -> None:
    terminal = out()
    for number, section in enumerate(sections):
        terminal.say(*([Line()] if number else []), *section)


def _code(found: Reading) -> Code:
    if found.log.damage is None:
        return Code.OK
    say_error(found.log.damage)
    return Code.FAILED


# -- the log, the trace, and what to do next


def _end(found: Reading, log_dir: Path | None) -> Iterator[Line]:
    from tapps_otel.report.run_screen import audit

    yield from audit(found.log, dropped=found.history.dropped)
    link = _trace_link(found.history)
    if link is not None:
        yield labelled("jaeger", link)
    yield from _related(found.history, log_dir)
    yield from next_lines(found, log_dir)


def _trace_link(history: RunHistory) -> str | None:
    """Return the address of the run's trace if a Jaeger is known."""
    from tapps_otel import settings
    from tapps_otel.otel.transport.jaeger import trace_url, url_of

    url = url_of(settings.current()) if history.trace_id else None
    return None if url is None else trace_url(url, history.trace_id)


def _related(history: RunHistory, log_dir: Path | None) -> Iterator[Line]:
    """Yield the commands that show the run which called this one, and those which it called."""
    children = report.child_runs(history)
    runs = [("child", one.workflow_id, one.log_dir) for one in children[:_CHILDREN]]
    if history.parent is not None:
        runs.insert(0, ("parent", history.parent.workflow_id, history.parent.log_dir))
    for label, workflow_id, folder in runs:
        where = log_dir if folder is None else Path(folder)
        yield labelled(label, advice_text(Advice(f"show {shlex.quote(workflow_id)}"), where))
    if len(children) > _CHILDREN:
        yield labelled("", f"and {counted(len(children) - _CHILDREN, 'more child run')}")


# -- for programs


def _json(found: Reading, choice: Choice) -> dict[str, Any]:
    from tapps_otel.past.timeline import make_timeline

    log, holder = found.log, found.holder
    made = make_timeline(found.history, now_ns=found.now_ns, log=log)
    return {
        **report.as_json(found.history, choice.accepts),
        "downtimes": [
            {"after": one.after, "start_ns": one.start_ns, "end_ns": one.end_ns}
            for one in made.downtimes
        ],
        "next": [advice.text for advice in advice_for(found)],
        "trace_url": _trace_link(found.history),
        "holder": holder and {"pid": holder[0], "host": holder[1]},
        "log": {
            "path": log.path,
            "problem": log.damage,
            "unfinished": log.unfinished,
            "seq": log.seq,
            "sha": log.sha,
            "repairs": log.repairs,
        },
    }


def _step_json(
    record: StepHistory,
    history: RunHistory,
    notes: list[Annotation],
    spans: list[CapturedSpan],
) -> dict[str, Any]:
    from msgspec import to_builtins

    return {
        "workflow_id": history.workflow_id,
        **report.step_json(record),
        "annotations": [to_builtins(one) for one in notes],
        "spans": [one._asdict() for one in spans],
    }
