"""``doctor``."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code

__all__ = ["doctor"]


def doctor(*, as_json: bool, log_dir: Path | None) -> Code:
    """Not there yet."""
    raise NotImplementedError
