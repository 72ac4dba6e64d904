"""How two runs differ, from their logs as far as they can be read. Takes no lease."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapps_otel.past.difference import compare
from tapps_otel.run.lookup import find
from tapps_otel.run.reading import read_run

if TYPE_CHECKING:
    from pathlib import Path

    from tapps_otel.past.difference import RunDiff

__all__ = ["diff"]


def diff(a: str, b: str, *, log_dir: Path | str | None = None) -> RunDiff:
    """How run ``b`` differs from run ``a``: its steps, inputs, results, errors and attempts.

    A damaged log is used up to the damage, and ``damage`` of its side tells of it.

    :raises RunNotFoundError: there is no such run
    :raises DecryptionError: values of one cannot be decrypted
    """
    found = [read_run(*find(name, log_dir)) for name in (a, b)]
    for run in found:
        if run.history.locked is not None:
            raise run.history.locked.error(run.history.workflow_id)
    one, other = found
    return compare(one.history, other.history, damage=(one.log.damage, other.log.damage))
