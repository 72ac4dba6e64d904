"""``demo``."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code

__all__ = ["demo"]


def demo(*, log_dir: Path | None) -> Code:
    """Not there yet."""
    raise NotImplementedError
