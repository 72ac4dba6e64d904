"""Files that commands write for their user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapps_otel.cli.usage import refuse_usage

__all__ = ["naming"]


@contextmanager
def naming(output: Path, on_existing: str) -> Iterator[None]:
    """Name the output file in errors; one that cannot be created is wrong usage.

    :param on_existing: what to do if there is a file of that name
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename is None:  # it was created, and a later write failed
            raise OSError(error.errno, reason, str(output)) from None
        if error.filename != str(output):
            raise
        hint = f": {on_existing}" if isinstance(error, FileExistsError) else ""
        refuse_usage(f"{output}: {reason}{hint}")
