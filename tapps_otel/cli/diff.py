"""``diff``: how two runs differ."""

from __future__ import annotations

from pathlib import Path

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import out, say_error, write_json

__all__ = ["diff"]


def diff(a: str, b: str, *, everything: bool, as_json: bool, log_dir: Path | None) -> Code:
    """Show how run ``b`` differs from run ``a``.

    :param everything: a row for each step that differs
    """
    import msgspec

    from tapps_otel.report.difference import difference_lines
    from tapps_otel.run import differences

    found = differences.diff(a, b, log_dir=log_dir)
    if as_json:
        write_json({"equal": found.equal, **msgspec.to_builtins(found)})
    else:
        terminal = out()
        terminal.say(*difference_lines(found, wide=terminal.width, everything=everything))
    damages = [side.damage for side in (found.a, found.b) if side.damage is not None]
    for damage in damages:
        say_error(damage)
    return Code.OK if found.equal and not damages else Code.FAILED
