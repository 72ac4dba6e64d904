"""One try of a third-party executor's step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from tapps_otel import clock
from tapps_otel.log.event import Event, raw_json
from tapps_otel.names import ATTR
from tapps_otel.run import failures
from tapps_otel.run.attempt import AttemptRecorder
from tapps_otel.run.codecs.native import to_json
from tapps_otel.run.made_files import MadeFiles
from tapps_otel.run.scope import OPEN, Recorder
from tapps_otel.run.step_spec import StepSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tapps_otel.log.artifacts import Artifact
    from tapps_otel.redact import Rules

__all__ = [
    "STATUSES",
    "ExternalAttemptRecorder",
    "ExternalStep",
    "checked_attributes",
    "described_end",
]

_NO_ERRORS: Final = frozenset({"completed", "paused"})
_MAY_LACK_ERRORS: Final = frozenset({"cancelled", "interrupted"})
STATUSES: Final = _NO_ERRORS | _MAY_LACK_ERRORS | {"failed"}  # that an executor can end a run with
_STEP_STATUSES: Final = STATUSES | {"timeout", "skipped"}
_RESULT_LIMIT: Final = 8 << 20  # bytes of JSON
_ATTRIBUTES_LIMIT: Final = 64 * 1024  # bytes of JSON


class ExternalStep(StepSpec):
    """A step as its executor describes it; its result is only recorded, never returned.

    :param definition: 16 hex digits of a digest of the step's fields
    """

    def put_result(self, run: Recorder, event: Event, value: object) -> None:
        """Put a result into its event, if there is one; what JSON cannot express is simplified."""
        if value is None:
            return
        data = bytes(raw_json(value))
        if len(data) <= _RESULT_LIMIT:
            run.store_result(event, data, self.title, self.policy)
        else:
            event.result_omitted = f"{len(data)} bytes, of at most {_RESULT_LIMIT}"

    def put_skip_result(self, run: Recorder, event: Event, value: object) -> None:
        """Put the result of a skip into its event, as any other."""
        self.put_result(run, event, value)


class ExternalAttemptRecorder(AttemptRecorder, kw_only=True, eq=False):
    """One try of an executor's step.

    :ivar late: it is recorded after it was done, without a duration
    :ivar skip_reason: why its executor began it and then did nothing
    :ivar begun_with: attributes of the event that starts it
    :ivar attributes: of the event that will end it
    """

    late: bool = False
    skip_reason: str | None = None
    begun_with: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None
    _ending: str | None = None
    _question: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether its end has not been written yet."""
        return self.state is OPEN

    def stop(self) -> None:
        """Note that its code has ended now; the reason is recorded later."""
        self._stopped = clock.monotonic_ns()

    def skip_drained(self, reason: str, result: Any) -> None:
        """End it as skipped, with the executor's reason, shortened if it is long."""
        super().skip_drained(failures.cut(self.rules.text(reason)), result)

    def summarize_artifacts(self, artifacts: Iterable[Artifact]) -> list[dict[str, Any]]:
        """Summarize files that the step has made; large ones are hashed once it has ended."""
        if self.files is None:
            self.files = MadeFiles()
        return self.files.summarize(artifacts)

    def begin_end(self) -> bool | None:
        """Begin the end; nothing that is open inside is waited for."""
        return None if super().begin_end() is None else False

    def give_up(self, error: BaseException) -> None:
        """Leave open what is open inside: it may outlive the step."""

    def fail_as(self, status: str, error: BaseException) -> None:
        """End it with a status that its executor chooses."""
        self._ending = status
        self.fail(error)

    def end_as(
        self,
        word: str,
        error: BaseException | str | None = None,
        *,
        question: str | None = None,
        result: Any = None,
        artifacts: Iterable[Artifact] = (),
    ) -> None:
        """End it with the status that its executor gives it.

        :param word: the executor's own; an unknown one counts as ``failed``
        :param error: the reason that it gives, also for a skip
        :param question: what a paused step asks
        """
        if self.settle():
            self.end_drained_as(word, error, question=question, result=result, artifacts=artifacts)

    def end_drained_as(
        self,
        word: str,
        error: BaseException | str | None = None,
        *,
        question: str | None = None,
        result: Any = None,
        artifacts: Iterable[Artifact] = (),
    ) -> None:
        """End it as :meth:`end_as` does; its end has begun."""
        status = word if word in _STEP_STATUSES else "failed"
        if status != word:
            self.attributes = {**(self.attributes or {}), ATTR.EXECUTOR_STATUS: word}
        if status == "completed":
            self.finish_drained(result, artifacts)
        elif status == "skipped":
            self.skip_drained(str(error or _no_reason(word)), result)
        else:
            self._ending, self._question = status, question
            if not isinstance(error, BaseException):
                hides = self.run.hides_values
                said = described_end("StepFailed", word, error, self.rules, hides_values=hides)
                error = _Said(said)
            self.fail_drained(error)

    def _put_error(self, event: Event, error: BaseException) -> None:
        if self._question is not None:
            event.question = failures.cut(self.rules.text(self._question))
        if isinstance(error, _Said):
            event.error = error.described or UNSET
        elif event.status != "paused":
            super()._put_error(event, error)

    def _start_event(self) -> Event:
        event = super()._start_event()
        if self.begun_with:
            event.attributes = self.rules.attributes(self.begun_with)
        if self.late:
            event.late = True
            self._stopped = self._began
        return event

    def _end_event(self, event_type: str, status: str) -> Event:
        event = super()._end_event(event_type, status)
        if self.late:
            event.late = True
        if self.attributes:
            event.attributes = self.rules.attributes(self.attributes)
        return event

    def _status_of(self, error: BaseException) -> str:
        return self._ending or super()._status_of(error)


class _Said(Exception):  # noqa: N818 - what it says need not be an error
    """What an executor says in place of an exception.

    :ivar described: as the log has it; ``None`` for nothing
    """

    def __init__(self, described: dict[str, Any] | None) -> None:
        self.described = described
        super().__init__()


def checked_attributes(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Attributes of an event; ``None`` for none.

    :raises TypeError: a value that JSON does not have
    :raises ValueError: they are too large for an event
    """
    held = dict(attributes)
    if not held:
        return None
    size = len(to_json(held))
    if size > _ATTRIBUTES_LIMIT:
        raise ValueError(f"attributes of {size} bytes, of at most {_ATTRIBUTES_LIMIT}")
    return held


def described_end(
    kind: str,
    word: str,
    error: BaseException | str | None,
    rules: Rules,
    *,
    hides_values: bool,
) -> dict[str, Any] | None:
    """The error of an end: an exception, or what the executor says; a failure always has one.

    :param kind: type of an error that is no exception
    :param word: the status, in the executor's own word
    """
    if word in _NO_ERRORS or (not error and word in _MAY_LACK_ERRORS):
        return None
    if isinstance(error, BaseException):
        return failures.describe(error, rules, hides_values=hides_values)
    said = rules.text(str(error or _no_reason(word)))
    return {"type": kind, "message": failures.cut(said), "stack": None}


def _no_reason(word: str) -> str:
    return f"its executor ended it as {word!r} and gave no reason"
