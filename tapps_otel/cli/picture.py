"""Lines of a terminal as a picture: one SVG file that needs nothing from elsewhere."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tapps_otel.cli.terminal import styled
from tapps_otel.report.text import width

if TYPE_CHECKING:
    from tapps_otel.report.lines import Line

__all__ = ["svg"]

_MARGIN: Final = 2  # columns right of the longest line
# Rich fills this in. It has no web font: the file works offline, with the fonts that are there.
_TEMPLATE: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>PICTURE_TITLE</title>
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
    white-space: pre;
}}
.{unique_id}-title {{
    font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
    font-size: 18px;
    font-weight: bold;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def svg(lines: Sequence[Line], title: str) -> str:
    """Draw lines as a terminal would show them."""
    from rich.console import Console

    columns = max(width(line.text) for line in lines) + _MARGIN
    console = Console(
        record=True,
        file=io.StringIO(),
        width=columns,
        height=len(lines),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
        highlight=False,
    )
    for line in lines:
        console.print(styled(line), soft_wrap=True)
    template = _TEMPLATE.replace("PICTURE_TITLE", html.escape(title))
    return console.export_svg(title=title, code_format=template, unique_id="terminal")
