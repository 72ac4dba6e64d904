"""Whether code that a log names is this user's choice: of the project at hand, or installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tapps_otel.log import files as _files

__all__ = ["is_known_code", "project_folder"]

_MARKS: Final = (".git", "pyproject.toml")  # a folder with one of them is a project's


def project_folder() -> Path | None:
    """The project at hand; ``None`` without a working directory.

    It is the nearest folder with a ``pyproject.toml`` or ``.git``, from the working directory
    upwards but below the user's own; if there is none, the working directory.
    """
    files = _files.system()
    here = files.working_directory()
    if here is None:
        return None
    for folder in (Path(here), *Path(here).parents):
        if folder == Path.home():
            break
        if any(files.exists(folder / mark) for mark in _MARKS):
            return folder
    return Path(here)


def is_known_code(file: str) -> bool:
    """Whether a file is of the project at hand, of a folder that Python imports from, or trusted.

    What counts is where the file really is: links are followed.
    """
    files = _files.system()
    project = project_folder()
    folders = [one for one in sys.path if one] + ([] if project is None else [str(project)])
    return files.is_below(file, folders) or files.is_trusted(Path(file))
