"""What the code of a step finds in a worker: its attempt, and a run that writes no log."""

from __future__ import annotations

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
from tapps_otel.run.scope import OPEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.log.event import Event
    from tapps_otel.redact import Rules
    from tapps_otel.run.remote.messages import Task
    from tapps_otel.run.step_spec import StepSpec

__all__ = ["WorkerAttempt", "WorkerRun"]

_LIMIT: Final = 1 << 20  # bytes, of spans and of annotations each: an answer has a limit


class WorkerRun(RunRecorder):
    """The run of a step that a worker executes.

    :ivar notes: annotations of the step, each with when it was made, by the monotonic clock, ns
    :ivar notes_dropped: number of annotations that were too many
    :ivar warnings: texts that the driver logs
    """

    in_worker = True

    def __init__(self, task: Task, rules: Rules) -> None:
        super().__init__(
            task.workflow_id,
            task.workflow,
            fold=Fold(task.workflow_id),
            blobs=Blobs(Path(task.log_dir)),
            execution=task.execution,
            rules=rules,
            off=True,
        )
        self.trace_id = task.trace_id
        self.notes: list[tuple[str, dict[str, Any], int]] = []
        self.notes_dropped, self._room = 0, _LIMIT
        self.warnings: dict[str, None] = {}
        self.write = self._note

    def _note(self, event: Event, /, *, sync: bool = False) -> None:  # noqa: ARG002 - as Write has it
        """Keep an annotation for the driver, which writes it."""
        name, attributes = str(event.name), event.attributes
        found = {} if attributes is msgspec.UNSET else attributes
        self._room -= len(name) + len(raw_json(found))
        if self._room < 0:
            self.notes_dropped += 1
        else:
            self.notes.append((name, found, clock.monotonic_ns()))

    def warn_once(self, text: str) -> bool:
        """Let the driver log a warning, once a run."""
        is_new = text not in self.warnings
        self.warnings[text] = None
        return is_new

    def is_detached(self) -> bool:
        """Steps are plain calls here, with a warning."""
        self.warn_once(
            "steps that a step calls in a worker of an executor are plain calls, without a log of "
            "their own: call them in the workflow, or submit them there"
        )
        return True


class WorkerAttempt(AttemptRecorder, kw_only=True, eq=False):
    """The attempt of a step that a worker executes.

    :ivar spans: events of spans of libraries made in it, by span id
    :ivar spans_dropped: number of spans that were too many
    """

    spans: dict[str, bytes] = msgspec.field(default_factory=dict)
    spans_dropped: int = 0
    _room: int = _LIMIT

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
            files=_HashedFiles(),
        )

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
