"""The seam between runs and OpenTelemetry: protocols and references.

The recorder starts a span just before it writes the event that opens something, for the span's
ids; it adds every event to the span after the event's line, and ends the span after the line of
its end. It reports every event that it wrote to the run's watchers; the log's writer reports to its
measures what it could not write. Nothing that OpenTelemetry does, or fails to do, reaches them.

Nothing of OpenTelemetry is imported here: a process without spans and metrics does not pay for it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapps_otel.log.reports import report
from tapps_otel.names import ATTR

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tapps_otel.log.event import Event
    from tapps_otel.redact import Rules

__all__ = [
    "PARENT",
    "SCOPE",
    "EventWatcher",
    "LiveSpan",
    "Measures",
    "SpanRef",
    "Tracing",
    "note_of_fork",
    "note_of_links",
    "warn_once",
]

SCOPE: Final = "tapps_otel"  # the instrumentation scope
PARENT: Final = "TAPPS_OTEL_PARENT"  # the variable that names a child process's parent
_log = logging.getLogger(__name__)
_warned: set[str] = set()


class SpanRef(NamedTuple):
    """A span known from the log, with the W3C trace flags and state that its start event has."""

    trace_id: str
    span_id: str
    flags: int = 1
    trace_state: str = ""


def note_of_links(
    interrupted: Sequence[SpanRef], caller: SpanRef | None = None
) -> list[dict[str, Any]]:
    """Return links as the ``otel`` field has them.

    :param interrupted: steps that an earlier execution left open
    :param caller: the step that called the run, in this process
    """
    links = [_note_of_link(step, "interrupted", is_remote=True) for step in interrupted]
    return links if caller is None else [*links, _note_of_link(caller, "caller")]


def note_of_fork(root: SpanRef) -> list[dict[str, Any]]:
    """Return the link of a fork as the ``otel`` field has it.

    :param root: of the run that it was forked from
    """
    return [_note_of_link(root, "forked_from", is_remote=True)]


def _note_of_link(link: SpanRef, purpose: str, **more: bool) -> dict[str, Any]:
    return {
        "trace_id": link.trace_id,
        "span_id": link.span_id,
        "flags": link.flags,
        **more,
        "attributes": {ATTR.LINK: purpose},
    }


class LiveSpan:
    """The span of an execution or attempt. No method raises.

    This class itself has the ids of a span, and does nothing.

    :ivar trace_id: 32 hex digits
    :ivar span_id: 16 hex digits
    :ivar parent_span_id: ``None`` for a trace's root
    """

    __slots__ = ("parent_span_id", "span_id", "trace_id")

    trace_id: str
    span_id: str
    parent_span_id: str | None

    def __init__(self, trace_id: str, span_id: str, parent_span_id: str | None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_span_id = parent_span_id

    def attach(self) -> object:
        """Make it the current span; return a token for :meth:`detach`."""
        return None

    def detach(self, token: object) -> None:
        """Make the span current that was current before :meth:`attach`."""

    def record(self, event: Event) -> None:
        """Add an event whose line is written, the event that started the span included."""

    def hold(self, event: Event, rules: Rules, put: Callable[[bytes], str] | None = None) -> None:
        """Note in the ending event, before its line, what others put on the span.

        :param rules: what is redacted of it, on the span too
        :param put: stores what is too large for a line, and returns its name for ``otel_blob``;
            without it that is left out, and the event tells how much it was
        """

    def end(self, event: Event, *, sha: str | None = None) -> None:
        """Add the ending event, whose line is written, and end the span.

        :param sha: of that line; on a workflow's span, the log can be verified against it later
        """


class Tracing(ABC):
    """Makes the spans of this process."""

    __slots__ = ()

    @property
    @abstractmethod
    def resource(self) -> dict[str, Any] | None:
        """Attributes of the provider's resource, as a starting event logs them.

        ``None`` if the provider has none to show. A fork changes it.
        """

    @abstractmethod
    def start(
        self,
        event: Event,
        *,
        start_ns: int,
        parent: SpanRef | LiveSpan | None,
        links: Sequence[SpanRef] = (),
    ) -> LiveSpan:
        """Start the span of an event that is not written yet; set its ids there.

        Sets ``trace_id``, ``span_id``, ``parent_span_id`` (left out for a root) and ``otel``.

        :param event: of type ``workflow_start``, ``workflow_resume`` or ``step_start``
        :param start_ns: its time, ns since 1970 UTC
        :param parent: ``None``: the caller's current span, if there is a valid one
        """

    @abstractmethod
    def catch_up(self, folder: Path, workflow_id: str, execution: int) -> None:
        """Send in the background what executions before this one could not send."""


class EventWatcher(ABC):
    """Gets every event of a run, once the log has accepted it. No method raises."""

    __slots__ = ()

    @abstractmethod
    def wrote(self, event: Event, took_ns: int) -> None:
        """Take note of an event.

        :param took_ns: how long the workflow waited for its line
        """


class Measures(EventWatcher):
    """Measures the runs of one workflow. No method raises.

    It is also the ``LogObserver`` of the run's log.
    """

    __slots__ = ()

    @abstractmethod
    def log_failed(self, error: BaseException) -> None:
        """Count a write, a sync or an opening of the log that failed."""

    @abstractmethod
    def log_dropped(self, events: int) -> None:
        """Count events that will never be in the log."""


def warn_once(what: str, error: BaseException) -> None:
    """Log a failure of OpenTelemetry: a warning once for each ``what``, then debug."""
    again = what in _warned
    _warned.add(what)
    report(
        _log.debug if again else _log.warning,
        "OpenTelemetry failed (%s): %s: %s. The run continues, and its log is complete.",
        what,
        type(error).__qualname__,
        error,
        exc_info=error if again else None,
    )
