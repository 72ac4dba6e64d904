"""``doctor``: check this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import out, write_json
from tapps_otel.report.lines import Line
from tapps_otel.report.text import plain

if TYPE_CHECKING:
    from tapps_otel.doctor import Finding

__all__ = ["doctor"]

_SIGNS: Final = {
    "ok": ("✓", "good"),
    "warn": ("!", "warn"),
    "fail": ("✗", "bad"),
    "info": ("·", "dim"),
}


def doctor(*, as_json: bool, log_dir: Path | None) -> Code:
    """Run every check; each finding is shown as soon as there is one."""
    from tapps_otel.doctor import examine

    found: list[Finding] = []
    for one in examine(log_dir):
        found.append(one)
        if not as_json:
            _say(one)
    failed = any(one.state == "fail" for one in found)
    if as_json:
        write_json({"ok": not failed, "checks": [asdict(one) for one in found]})
    return Code.FAILED if failed else Code.OK


def _say(one: Finding) -> None:
    terminal, sign = out(), _SIGNS[one.state]
    style = sign[1] if one.state in {"warn", "fail"} else ""
    terminal.say(Line.of(sign, f" {one.name:<12} ", (plain(one.text), style)))
    if one.hint:
        terminal.say(Line.of((f"{'':15}{plain(one.hint)}", "dim")))
