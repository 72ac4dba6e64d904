"""From the current scope to the recorder of its run.

Apart from the recorder, because code that only declares steps must not pay for importing that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tapps_otel.run.scope import current_scope

if TYPE_CHECKING:
    from tapps_otel.run.recorder import RunRecorder
    from tapps_otel.run.scope import Scope

__all__ = ["recorder_here", "recorder_of"]


def recorder_of(scope: Scope) -> RunRecorder:
    """The recorder of the run that a scope belongs to."""
    return cast("RunRecorder", scope.run)


def recorder_here() -> RunRecorder | None:
    """The recorder of the run whose code calls this."""
    scope = current_scope.get()
    return None if scope is None else recorder_of(scope)
