"""Finding the workflow that a command names, and the user's lines in a traceback."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tapps_otel.cli.terminal import err, say_error
from tapps_otel.errors import RunConflictError
from tapps_otel.report.lines import Line
from tapps_otel.report.text import block

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapps_otel.run.relocation import Place
    from tapps_otel.run.workflow import Workflow

__all__ = ["load_workflow", "user_frames"]

_PACKAGE: Final = str(Path(__file__).parents[1])
_DEMO: Final = str(Path(_PACKAGE, "demo.py"))  # its workflow counts as a user's
_STANDARD: Final = sysconfig.get_path("stdlib")
_MOST_FRAMES: Final = 5  # enough to see where it happened and how the workflow got there


def load_workflow(
    target: str,
    workflow_id: str | None = None,
    recorded: Mapping[str, Any] | None = None,
    *,
    may_import: Callable[[str], bool] = lambda _: True,
) -> Workflow[..., Any] | None:
    """Import a workflow; where that fails, write why and return ``None``.

    :param target: ``package.module:function`` or ``file.py:function``
    :param workflow_id: the run that it is needed for, to be named in the message
    :param recorded: what the run's log has of its workflow, if the target is from there
    :param may_import: asked, with the file of the workflow, before it is imported; writes why not
    """
    from tapps_otel.run.relocation import place_of
    from tapps_otel.run.workflow import find_workflow

    place = place_of(target, recorded or {})
    if place.file is not None and not may_import(place.file):
        return None
    _extend_path(place)
    try:
        return find_workflow(place.path, workflow_id)
    except RunConflictError as error:
        say_error(str(error))
        cause = error.__cause__
        if cause is not None and not isinstance(cause, (ModuleNotFoundError, AttributeError)):
            err().say(*user_frames(cause))
        return None


def _extend_path(place: Place) -> None:
    """Let modules be found as ``python -m`` and ``python file.py`` find them."""
    for folder in reversed(place.before):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    sys.path += [folder for folder in place.after if folder not in sys.path]


def user_frames(error: BaseException) -> list[Line]:
    """Return the last lines of the user's code that an exception passed through."""
    if isinstance(error, SyntaxError):  # its message names the place
        return []
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_PACKAGE, "<frozen")) or frame.filename == _DEMO
    ]
    frames = list(dropwhile(_is_standard, frames))[-_MOST_FRAMES:]
    texts = [text for part in traceback.format_list(frames) for text in block(part)]
    return [Line.of((text, "dim")) for text in texts]


def _is_standard(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_STANDARD) and "site-packages" not in frame.filename
