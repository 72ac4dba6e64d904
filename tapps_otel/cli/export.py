"""``export``: write a run for other programs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from tapps_otel.cli.codes import Code
from tapps_otel.cli.output import naming
from tapps_otel.cli.terminal import err, out, styled
from tapps_otel.errors import LogError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import counted, plain

if TYPE_CHECKING:
    from tapps_otel.audit.export import Export, Format

__all__ = ["export"]


def export(
    workflow_id: str, form: Format, output: Path | None, *, force: bool, log_dir: Path | None
) -> Code:
    """Export a run in one of the formats.

    :param output: ``None`` for standard output
    """
    from tapps_otel.audit.export import Export
    from tapps_otel.run.lookup import find

    made = Export(*find(workflow_id, log_dir), form)
    try:
        with _shown(made, output):
            if output is None:
                _to_standard_output(made)
            else:
                _to_file(made, output, force=force)
    except LogError:
        if made.count:
            _say(made, output)
        raise
    _say(made, output)
    return Code.FAILED if made.problems else Code.OK


def _to_standard_output(made: Export) -> None:
    """Write bytes, as no locale may change them."""
    stream = getattr(sys.stdout, "buffer", None)
    for piece in made:
        if stream is not None:  # it is None if it was closed before this process began
            stream.write(piece.encode())
    sys.stdout.flush()


def _to_file(made: Export, output: Path, *, force: bool) -> None:
    from tapps_otel.audit.export import save

    other = "as it is in the folder of logs" if force else "or pass --force to replace it"
    with naming(output, f"name another, {other}"):
        save(made, output, replace=force)


def _shown(made: Export, output: Path | None) -> AbstractContextManager[object]:
    """Show progress on a terminal, unless the export itself is written to one."""
    terminal = err()
    if not terminal.is_terminal or (output is None and out().is_terminal):
        return nullcontext()
    from rich.live import Live

    return Live(
        get_renderable=lambda: styled(Line.of(("… ", "strong"), _count(made))),
        console=terminal.console,
        refresh_per_second=5,
        transient=True,
        redirect_stdout=False,
    )


def _count(made: Export) -> str:
    return counted(made.count, "event" if made.form == "csv" else "span")


def _say(made: Export, output: Path | None) -> None:
    """Report to standard error, where it does not mix with the export."""
    terminal = err()
    for text in made.problems:
        terminal.say(Line.of(("problem  ", "bad"), plain(text)))
    if made.running:
        terminal.say(Line.of(("the run is in progress: unfinished spans are left out", "warn")))
    if output is not None:
        where = (plain(str(output)), "strong")
        terminal.say(Line.of(("wrote    ", "good"), where, f"  {_count(made)}"))
