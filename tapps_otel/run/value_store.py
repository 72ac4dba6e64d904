"""Values in the events of a run: in the line, or in a blob if they are too large for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec import Raw

from tapps_otel.errors import LogWriteError
from tapps_otel.log.blobs import INLINE_LIMIT
from tapps_otel.log.encrypted import CodecFailedError
from tapps_otel.redact import REDACTED, combined
from tapps_otel.run.policy import Policy

if TYPE_CHECKING:
    from tapps_otel.log.event import Event
    from tapps_otel.run.run_state import RunState

__all__ = ["ValueStore"]

_log = logging.getLogger("tapps_otel")


class ValueStore:
    """Puts values into the events of a run. Where it has no log here, all stay in their events."""

    def __init__(self, run: RunState) -> None:
        self._run, self._blobs = run, run.blobs

    def put_blob(self, data: bytes) -> str:
        """Store what is too large for a line, of spans; return its name.

        :raises OSError: it cannot be stored
        """
        return self._blobs.put(data)

    def store_result(
        self,
        event: Event,
        data: bytes,
        what: str,
        policy: Policy = Policy(),  # noqa: B008 - frozen
    ) -> None:
        """Put a result into its event, or into a blob if it is large.

        It is left out if it is a secret, those are not stored, and no codec encrypts it.

        :param what: returned it
        :param policy: of the step that did
        """
        run = self._run
        if (policy.redact_results or run.redacts_results) and self._is_secret(data, policy):
            event.result_omitted = REDACTED
            run.warn_once(
                f"the result of {what} is not stored, because redaction would alter it "
                "(redact_results): a resume cannot take it from the log"
            )
        elif len(data) <= INLINE_LIMIT or run.detached:
            event.result = Raw(data)
        else:
            self._store_large_result(event, data)

    def _is_secret(self, data: bytes, policy: Policy) -> bool:
        run = self._run
        return not run.hides_values and combined(run.rules, policy.redact).alters_json(data)

    def _store_large_result(self, event: Event, data: bytes) -> None:
        try:
            event.result_blob = self._blobs.put_value(data)
        except CodecFailedError:  # it waits with its event
            event.result = Raw(data)
        except OSError as error:
            run, writer = self._run, self._run.writer
            if writer is not None and writer.stops:
                raise LogWriteError(writer.path, f"a large result: {error}") from error
            _log.error("run %s: a large result cannot be stored: %s", run.workflow_id, error)
            event.result_omitted = f"it could not be stored: {error}"

    def store_inputs(self, event: Event, data: bytes) -> None:
        """Put captured inputs into their event, or into a blob if they are large."""
        run = self._run
        if len(data) <= INLINE_LIMIT or run.detached:
            event.inputs = Raw(data)
            return
        try:
            event.inputs_blob = self._blobs.put_value(data)
        except CodecFailedError:
            event.inputs = Raw(data)
        except OSError as error:  # the step does not depend on them
            _log.error("run %s: large inputs cannot be stored: %s", run.workflow_id, error)
