"""The step of another run in whose body a run is opened. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tapps_otel.errors import RunRecursionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapps_otel.otel.seam import SpanRef

__all__ = ["Caller"]


class Caller(NamedTuple):
    """A step that calls a run.

    :ivar workflow_id: of the run that the step belongs to
    :ivar log_dir: of that run
    :ivar span: of the step
    :ivar is_current: whether OpenTelemetry knows that span, as the current one
    :ivar depth: number of steps around the called run, in this run and in those around it
    :ivar outer: the step that called the run which the step belongs to
    """

    workflow_id: str
    step_id: str
    log_dir: Path
    span: SpanRef
    is_current: bool
    depth: int
    outer: Caller | None

    def as_field(self, log_dir: Path | None) -> dict[str, str]:
        """The caller as the log of the called run names it.

        :param log_dir: of the called run
        """
        field = {"workflow_id": self.workflow_id, "step_id": self.step_id}
        if log_dir != self.log_dir:
            field["log_dir"] = str(self.log_dir)
        return field

    def check_recursion(self, workflow_id: str, log_dir: Path) -> None:
        """Check that the called run is not one of those around the call.

        :raises RunRecursionError: it is
        """
        inside = [workflow_id]
        for caller in self._all():
            inside.append(caller.workflow_id)
            if (caller.workflow_id, caller.log_dir) == (workflow_id, log_dir):
                raise RunRecursionError(workflow_id, inside[::-1])

    def _all(self) -> Iterator[Caller]:
        caller: Caller | None = self
        while caller is not None:
            yield caller
            caller = caller.outer
