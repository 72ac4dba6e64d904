"""Whether a collector has confirmed all spans of a run, by its ledger. Nothing is sent."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tapps_otel.errors import LogError, SpanFilterError
from tapps_otel.log.tail import head_of
from tapps_otel.otel.replay.ledger import Ledger, destinations
from tapps_otel.otel.replay.run_spans import RunSpans
from tapps_otel.otel.transport.encoding import id_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tapps_otel.log.store import Store

__all__ = ["is_unsent"]


def is_unsent(store: Store, workflow_id: str, side_logs: Sequence[Path], *, wanted: bool) -> bool:
    """Return whether spans of a run are still to be sent.

    They are if no collector has confirmed all of them, but for those that it refused by
    themselves. A run of which none was ever sent counts only if spans are wanted.

    :param wanted: whether a collector is configured
    :raises OSError: the ledger or a log cannot be read
    """
    path = store.ledger_path(workflow_id)
    names = destinations(path)
    if not names:
        return wanted
    return not any(
        _has_all(store, workflow_id, side_logs, Ledger(path, name).read()) for name in names
    )


def _has_all(store: Store, workflow_id: str, side_logs: Sequence[Path], ledger: Ledger) -> bool:
    logs = [store.log_path(workflow_id), *side_logs]
    done = {log.name for log in logs if _ends_as_confirmed(log, workflow_id, ledger)}
    if len(done) == len(logs):  # nothing has to be read
        return True
    single = ledger.spans()
    spans = RunSpans(store, workflow_id, side_logs=side_logs, skip=done)
    with suppress(LogError, SpanFilterError):  # what comes after that cannot be sent
        for found in spans:
            marked = 0 < found.seq <= ledger.marks.get(found.log, (0, ""))[0]
            span_id = id_of(found.span)
            if not marked and span_id not in ledger.refused and single.get(span_id) is None:
                return False
        return not spans.problems
    return False


def _ends_as_confirmed(log: Path, workflow_id: str, ledger: Ledger) -> bool:
    whole = ledger.wholes.get(log.name)
    with suppress(FileNotFoundError, LogError):
        return whole is not None and head_of(log, workflow_id) == (whole.seq, whole.sha)
    return False
