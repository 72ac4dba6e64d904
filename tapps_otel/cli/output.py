"""Files that commands write for their user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapps_otel.cli.usage import refuse_usage

__all__ = ["naming", "write_file"]


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


def write_file(output: Path, text: str, *, logs: Path, force: bool) -> None:
    """Write a private file (0600), which has its name only once it is complete.

    :param logs: the folder of logs, in which no file is replaced
    :param force: replace an existing file
    """
    from tapps_otel.log.files import system

    files = system()
    other = "as it is in the folder of logs" if force else "or pass --force to replace it"
    with naming(output, f"name another, {other}"):
        replace = force and not files.is_same_file(output.parent, logs)
        with (
            files.new_file(output, replace=replace, sync=True) as descriptor,
            files.writer(descriptor) as file,
        ):
            file.write(text.encode())
