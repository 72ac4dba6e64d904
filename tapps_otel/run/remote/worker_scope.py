"""What the code of a step finds in a worker: its attempt, and a run that writes no log."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tapps_otel import clock
from tapps_otel.log.artifacts import summarize
from tapps_otel.log.blobs import Blobs
from tapps_otel.log.event import json_of, raw_json
from tapps_otel.past.fold import Fold
from tapps_otel.run.attempt import AttemptRecorder
from tapps_otel.run.made_files import MadeFiles
from tapps_otel.run.recorder import RunRecorder
from tapps_otel.run.scope import OPEN, current_scope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.log.event import Event
    from tapps_otel.redact import Rules
    from tapps_otel.run.remote.messages import Origin, Task
    from tapps_otel.run.step_spec import StepSpec

__all__ = ["WorkerAttempt", "WorkerRun", "run_of"]

_LIMIT: Final = 1 << 20  # bytes, of spans and of annotations each: an answer has a limit


class WorkerRun(RunRecorder):
    """A run whose steps this worker executes; one for all of them, because it takes long to make.

    :ivar executing: attempts whose code is executed at the moment
    """

    in_worker = True

    def __init__(self, origin: Origin, rules: Rules) -> None:
        super().__init__(
            origin.workflow_id,
            origin.workflow,
            fold=Fold(origin.workflow_id),
            blobs=Blobs(Path(origin.log_dir)),
            execution=origin.execution,
            rules=rules,
            off=True,
        )
        self.trace_id = origin.trace_id
        self.executing: list[WorkerAttempt] = []
        self.write = self._note

    def _note(self, event: Event, /, *, sync: bool = False) -> None:  # noqa: ARG002 - as Write has it
        """Keep an annotation for the driver, which writes it."""
        attempt = self._attempt_here()
        if attempt is not None and event.event_type == "annotation":
            found = {} if event.attributes is msgspec.UNSET else event.attributes
            attempt.note(str(event.name), found)

    def _attempt_here(self) -> WorkerAttempt | None:
        """The attempt whose code calls this; in a thread that does not show it, the only one."""
        scope = current_scope.get()
        if isinstance(scope, WorkerAttempt):
            return scope
        return self.executing[0] if len(self.executing) == 1 else None

    def warn_once(self, text: str) -> bool:
        """Let the driver log a warning, once a run."""
        attempt = self._attempt_here()
        if attempt is None or text in self._warned:
            return False
        self._warned.add(text)
        attempt.warnings.append(text)
        return True

    @property
    def encloses_workflows(self) -> bool:
        """A workflow that a step calls here without an id is a plain call, as a step is."""
        return True

    def check_plain(self, spec: StepSpec) -> None:
        """Refuse a plain call that would run again, unseen, with the step around it.

        :raises LookupError: the step must not run twice
        """
        if spec.policy.on_interrupted == "fail":
            raise LookupError(
                f"step {spec.name!r} must not run twice (on_interrupted='fail'), and a step that a "
                "step calls in a worker of an executor has no log of its own: call it in the "
                "workflow, or submit it there"
            )

    def is_detached(self) -> bool:
        """Steps are plain calls here, with a warning."""
        self.warn_once(
            "steps that a step calls in a worker of an executor are plain calls, without a log of "
            "their own: call them in the workflow, or submit them there"
        )
        return True


@lru_cache(maxsize=16)
def run_of(origin: Origin, rules: Rules) -> WorkerRun:
    """The run of a call."""
    return WorkerRun(origin, rules)


if hasattr(os, "register_at_fork"):  # a thread of the parent may hold their locks
    os.register_at_fork(after_in_child=run_of.cache_clear)


class WorkerAttempt(AttemptRecorder, kw_only=True, eq=False):
    """The attempt of a step that a worker executes.

    :ivar notes: its annotations, each with when it was made, by the monotonic clock, ns
    :ivar notes_dropped: number of annotations that were too many
    :ivar spans: events of spans of libraries made in it, by span id
    :ivar spans_dropped: number of spans that were too many
    :ivar warnings: texts that the driver logs
    """

    notes: list[tuple[str, dict[str, Any], int]] = msgspec.field(default_factory=list)
    notes_dropped: int = 0
    spans: dict[str, bytes] = msgspec.field(default_factory=dict)
    spans_dropped: int = 0
    warnings: list[str] = msgspec.field(default_factory=list)
    _room: int = _LIMIT
    _room_for_notes: int = _LIMIT

    @classmethod
    def of(cls, task: Task, run: WorkerRun, spec: StepSpec) -> WorkerAttempt:
        """The attempt that a task describes."""
        return cls(
            run=run,
            scope=run.root,
            spec=spec,
            step_id=task.step_id,
            number=task.attempt,
            thread=get_ident(),
            task=None,
            span_id=task.span_id,
        )

    def add_artifact(self, path: Path, media_type: str | None) -> None:
        """Note a file that the step has made."""
        with self.run.lock:
            if self.files is None:
                self.files = _HashedFiles()
        super().add_artifact(path, media_type)

    def note(self, name: str, attributes: dict[str, Any]) -> None:
        """Keep an annotation."""
        self._room_for_notes -= len(name) + len(raw_json(attributes))
        if self._room_for_notes < 0:
            self.notes_dropped += 1
        else:
            self.notes.append((name, attributes, clock.monotonic_ns()))

    def take_span(self, event: Event) -> bool:
        """Keep the start of a span, or the whole span in its place; return whether it was kept."""
        if self.state is not OPEN:
            return False
        line, span_id = json_of(event), str(event.span_id)
        before = self.spans.pop(span_id, b"")
        left = self._room + len(before) - len(line)
        if left < 0:
            self._room += len(before)
            self.spans_dropped += 1
        else:
            self._room = left
            self.spans[span_id] = line
        return True


class _HashedFiles(MadeFiles):
    """The files of an attempt in a worker: all are hashed before it answers."""

    __slots__ = ()

    def summarize(self, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
        """Summarize files."""
        return summarize(artifacts)
