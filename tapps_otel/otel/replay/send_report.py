"""The result of sending a run's spans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapps_otel.past.fold import ChildRun

__all__ = ["SendReport"]


@dataclass(slots=True)
class SendReport:
    """The result of sending a run's spans.

    :ivar destination: protocol and address of the collector
    :ivar sent: spans that it accepted now
    :ivar confirmed: spans that it had accepted before
    :ivar refused: spans that it refuses for what is in them, now or before; only ``force`` sends
        them again
    :ivar rejected: spans that it rejected or refused without the blame being clear; the next send
        sends them again
    :ivar left_out: spans that the setting ``span_filter`` left out, of the logs that were read
    :ivar differing: spans that it had confirmed with other content; they were not sent
    :ivar seq: of the line of the run's log up to which spans were sent
    :ivar children: the runs that its steps called, which have logs of their own
    :ivar running: the run is in progress, and open spans will be sent later
    :ivar problems: what went wrong, as sentences
    """

    workflow_id: str
    destination: str
    sent: int = 0
    confirmed: int = 0
    refused: int = 0
    rejected: int = 0
    left_out: int = 0
    differing: int = 0
    seq: int = 0
    children: list[ChildRun] = field(default_factory=list)
    running: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the collector has all spans that have ended."""
        return not self.problems
