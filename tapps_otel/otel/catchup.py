"""What earlier executions could not send: sent when the run is resumed, in the background.

To a collector that is spoken to from here goes what its ledger does not show as confirmed. A
provider of the program's own is given what was cut short, for nobody else will ever end that; what
it had queued when its process died only ``tapps-otel send`` can know to be missing.

Nothing waits for this but the process's exit, and that no longer than ``shutdown_timeout``.
"""

from __future__ import annotations

import atexit
import logging
import threading
from typing import TYPE_CHECKING, Any

from tapps_otel.errors import TappsError
from tapps_otel.log.store import Store
from tapps_otel.otel import setup
from tapps_otel.otel.client import connect
from tapps_otel.otel.otlp import OtlpExporter
from tapps_otel.otel.send import send_run
from tapps_otel.otel.source import RunSpans
from tapps_otel.otel.spans import warn_once

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.trace import TracerProvider

    from tapps_otel.otel.client import Client

__all__ = ["catch_up"]

_log = logging.getLogger(__name__)


def catch_up(
    folder: Path, workflow_id: str, execution: int, provider: TracerProvider, timeout: float
) -> None:
    """Begin to send what belongs to executions before this one.

    :param timeout: how long the process's exit may wait for it, seconds
    """
    thread = threading.Thread(
        target=_guarded,
        args=(Store(folder), workflow_id, execution, provider),
        name="tapps_otel-catch-up",
        daemon=True,
    )
    thread.start()
    atexit.register(_wait, thread, workflow_id, timeout)


def _wait(thread: threading.Thread, workflow_id: str, timeout: float) -> None:
    thread.join(timeout)
    if thread.is_alive():
        _log.warning(
            "spans of earlier executions were not all sent; the log has them: "
            "`tapps-otel send %s` sends them later.",
            workflow_id,
        )


def _guarded(store: Store, workflow_id: str, execution: int, provider: TracerProvider) -> None:
    try:
        clients = [
            delivery.exporter.inner.client
            for delivery in setup.deliveries()
            if isinstance(delivery.exporter.inner, OtlpExporter)
        ]
        if setup.deliveries():
            for one in clients:
                _send(store, workflow_id, execution, one)
        else:
            _hand_over(store, workflow_id, execution, provider)
    except TappsError as error:
        _log.warning("%s", error)
    except Exception as error:  # noqa: BLE001 - of a processor, an exporter, the SDK
        warn_once("catching up", error)


def _send(store: Store, workflow_id: str, execution: int, live: Client) -> None:
    client = connect(live.destination)  # of its own: the live one is in use
    try:
        report = send_run(store, workflow_id, client, before=execution)
    finally:
        client.close()
    for problem in report.problems:
        _log.warning("run %s: %s", workflow_id, problem)


def _hand_over(store: Store, workflow_id: str, execution: int, provider: TracerProvider) -> None:
    """Give a provider that is not ours what was cut short, as if it had just ended."""
    processor: Any = getattr(provider, "_active_span_processor", None)
    if processor is None:  # not the SDK's
        return
    for found in RunSpans(store, workflow_id, before=execution):
        if found.seq == 0 and found.span.context.trace_flags.sampled:
            processor.on_end(found.span)
