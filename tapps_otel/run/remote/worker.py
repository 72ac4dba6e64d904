"""What a worker does: executes one call of a step, and answers with what became of it."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, Raw

from tapps_otel import clock, settings
from tapps_otel.errors import SettingsError
from tapps_otel.log.event import Event
from tapps_otel.otel import run_registry
from tapps_otel.otel.environment import traces_wanted
from tapps_otel.otel.run_registry import KnownRun
from tapps_otel.redact import combined, rules_of
from tapps_otel.run import failures
from tapps_otel.run.attempt import status_of
from tapps_otel.run.leased_log import boot_id
from tapps_otel.run.remote.call import Incoming, hold_back
from tapps_otel.run.remote.driver_end import follow_driver
from tapps_otel.run.remote.messages import Answer, Note, read_origin, read_task, write_answer
from tapps_otel.run.remote.worker_scope import WorkerAttempt, run_of
from tapps_otel.run.scope import CLOSING, current_scope
from tapps_otel.run.signals import keep_interrupt, release_interrupt
from tapps_otel.run.step_spec import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.redact import Rules
    from tapps_otel.run.remote.call import Call
    from tapps_otel.run.remote.messages import Origin, Task
    from tapps_otel.settings_model import Settings
    from tapps_otel.settings_types import SpanFilter

__all__ = ["execute", "machine_here"]


# Variables that decide whether this process sends spans, also that it does not.
_OWN: Final = frozenset({"OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"})


_host_here = cache(socket.gethostname)


@cache
def machine_here() -> str:
    """Identifies this machine, until it is booted again."""
    return f"{_host_here()}/{boot_id()}"


@cache
def _usual_rules() -> Rules:
    return rules_of(True)  # noqa: FBT003 - the setting's type


@dataclass(slots=True)
class _Privacy:
    """What an answer must not show, as far as that is known by now."""

    rules: Rules = field(default_factory=_usual_rules)
    hides_values: bool = True


def execute(task: bytes, call: bytes) -> bytes:
    """Execute a call of a step; return the answer, in which any exception is.

    :param task: what the worker has to know of it
    :param call: pickled
    """
    answer, privacy = Answer(host=_host_here(), pid=os.getpid()), _Privacy()
    try:
        keep_interrupt()  # until all is loaded: what drops it would let the step run on
        found = read_task(task)
        origin = read_origin(bytes(found.origin))
        privacy.hides_values = origin.hides_values
        _prepare(origin)
        # What the code sets in its context must not reach the next call.
        return copy_context().run(_execute, found, origin, call, answer, privacy)
    except BaseException as error:  # noqa: BLE001 - also SystemExit, and Ctrl-C at any instruction
        with suppress(KeyboardInterrupt):
            release_interrupt()
        return _answer_failed(answer, error, privacy)


def _execute(task: Task, origin: Origin, data: bytes, answer: Answer, privacy: _Privacy) -> bytes:
    try:
        incoming = Incoming(data, task.modules)
        rules = privacy.rules = rules_of(incoming.redact)
        call = incoming.call()
    except BaseException as error:
        error.add_note(
            f"a worker on {answer.host} (process {answer.pid}) could not load the call: does it "
            "have the program's modules, in the same version?"
        )
        raise
    spec = call.step.spec
    answer.definition = spec.definition
    privacy.rules = combined(rules, spec.policy.redact)
    run = run_of(origin, rules)
    attempt = WorkerAttempt.of(task, run, spec)
    run.executing.append(attempt)
    try:
        with _tracing(task, origin, attempt, incoming.span_filter), attempt.current():
            began = clock.monotonic_ns()
            try:
                release_interrupt()
                _call_body(call, answer)
            except BaseException as error:  # noqa: BLE001 - whatever the step raises is its outcome
                _put_error(answer, error, privacy)
            ended = clock.monotonic_ns()
    finally:
        run.executing.remove(attempt)
    attempt.state = CLOSING
    answer.duration_ns = ended - began
    _put_made(answer, attempt, ended)
    return write_answer(answer, list(attempt.spans.values()))


def _call_body(call: Call, answer: Answer) -> None:
    spec = call.step.spec
    try:
        result = call.step.run_body(call.args, call.kwargs)
    except Skipped as skipped:
        answer.result = Raw(spec.skip_result_json(skipped.result))
        answer.status, answer.reason = "skipped", skipped.reason
    else:
        answer.result = Raw(spec.result_json(result))
        answer.status = "completed"


def _put_error(answer: Answer, error: BaseException, privacy: _Privacy) -> None:
    answer.status = status_of(error)
    answer.error = failures.describe(error, privacy.rules, hides_values=privacy.hides_values)


def _put_made(answer: Answer, attempt: WorkerAttempt, ended: int) -> None:
    """Put into an answer what the step has left besides its result."""
    if attempt.files is not None:
        event = Event(event_type="step_finish", workflow_id="", timestamp="", execution=0)
        attempt.files.put(event)
        answer.artifacts = [] if event.artifacts is UNSET else event.artifacts
    if answer.reason:
        answer.reason = attempt.rules.text(answer.reason)
    answer.notes = [
        msgspec.to_builtins(Note(name, attributes, ended - at))
        for name, attributes, at in attempt.notes
    ]
    answer.notes_dropped, answer.spans_dropped = attempt.notes_dropped, attempt.spans_dropped
    answer.warnings = attempt.warnings


def _answer_failed(answer: Answer, error: BaseException, privacy: _Privacy) -> bytes:
    """Answer that a call could not be executed, or its outcome could not be written."""
    plain = Answer(host=answer.host, pid=answer.pid, definition=answer.definition)
    _put_error(plain, error, privacy)
    return write_answer(plain, [])


# ---------------------------------------------------------------- the process


def _is_here(origin: Origin) -> bool:
    """Whether the driver is on this machine."""
    return origin.machine == machine_here()


def _is_driver(origin: Origin) -> bool:
    """Whether this process is the driver."""
    return origin.pid == os.getpid() and _is_here(origin)


def _prepare(origin: Origin) -> None:
    """Prepare this process for the calls of a driver."""
    if not _is_here(origin) or origin.pid == os.getpid():
        return
    if origin.owned or origin.pid in {os.getppid(), _pid_of_parent()}:
        follow_driver(origin.pid)


def _pid_of_parent() -> int | None:
    """The process that started this one by ``multiprocessing``, perhaps through a server."""
    process = sys.modules.get("multiprocessing.process")
    parent = None if process is None else process.parent_process()
    return None if parent is None else parent.pid


# ---------------------------------------------------------------- spans

_NO_TRACING: Final = nullcontext()


def _tracing(
    task: Task, origin: Origin, attempt: WorkerAttempt, span_filter: SpanFilter | str | None
) -> AbstractContextManager[None]:
    """Let spans of libraries be children of the step's, and part of the answer."""
    if not _is_driver(origin):
        _take_delivery(origin)
    if "opentelemetry.trace" in sys.modules or _spans.are_wanted():
        return _traced(task, origin, attempt, span_filter)
    return _NO_TRACING


@contextmanager
def _traced(
    task: Task, origin: Origin, attempt: WorkerAttempt, span_filter: SpanFilter | str | None
) -> Iterator[None]:
    from tapps_otel.otel import worker  # heavy, and most workers make no spans

    if not _is_driver(origin):
        is_here = _is_here(origin)
        run_registry.enter_once(
            origin.trace_id,
            KnownRun(
                origin.workflow_id,
                Path(origin.log_dir),
                origin.execution,
                clock.time_ns(),
                append=_taker(is_here=is_here),
                has_blobs=is_here,
                rules=attempt.run.rules,
                span_filter=_filter_here(span_filter, attempt),
            ),
        )
        worker.prepare(settings.current())
    with worker.joined(task.context):
        yield
    if attempt.spans:
        worker.flush_soon()


def _filter_here(given: SpanFilter | str | None, attempt: WorkerAttempt) -> SpanFilter | str | None:
    """The driver's filter of spans; ``None``: that of this process, if it has any."""
    if given is not hold_back:
        return given
    if settings.current().span_filter is not None:  # as in a worker that was forked
        return None
    attempt.run.warn_once(
        "the setting span_filter is a function that cannot be pickled, so that workers send no "
        "spans: the log has them, and `tapps-otel send` sends them. Define the function at the "
        "top level of a module"
    )
    return given


class _Spans:
    """Knows whether this process sends spans; the environment is asked once for its settings."""

    _settings: Settings | None = None
    _wanted = False

    def are_wanted(self) -> bool:
        config = settings.current()
        if config is not self._settings:
            self._settings, self._wanted = config, traces_wanted(config)
        return self._wanted


_spans: Final = _Spans()


def _take_delivery(origin: Origin) -> None:
    """Send spans where the driver does, unless this process has settings of its own for them."""
    if not (origin.environment or origin.settings) or not _OWN.isdisjoint(os.environ):
        return
    if _spans.are_wanted():
        return
    os.environ.update(origin.environment)
    with suppress(SettingsError):  # of another version of this package
        settings.configure(**origin.settings)


@cache
def _taker(*, is_here: bool) -> Callable[[Event, bool], int | None]:
    """What takes captured spans for the answer of the call that they are made in.

    :param is_here: whether the log is on this machine, where spans that end later have a side log
    """

    def take(event: Event, sync: bool) -> int | None:  # noqa: ARG001, FBT001 - as KnownRun has it
        attempt = current_scope.get()
        if isinstance(attempt, WorkerAttempt) and attempt.take_span(event):
            return 0
        if is_here:
            raise LookupError
        return 0

    return take
