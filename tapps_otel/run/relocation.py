"""Where the code of a run is for this process: its project may have been copied or moved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tapps_otel.log import files
from tapps_otel.run.import_path import is_file_name

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Place", "place_of", "recorded_file"]


class Place(NamedTuple):
    """Where to import a workflow from.

    :ivar path: its import path
    :ivar before: folders to search for modules before all others
    :ivar after: those to search after all others
    :ivar file: its file; ``None`` if only its module is known
    """

    path: str
    before: tuple[str, ...]
    after: tuple[str, ...] = ()
    file: str | None = None


def place_of(path: str, workflow: Mapping[str, Any]) -> Place:
    """Find where to import a workflow from.

    Code that was under the run's working directory, and is in the same place under that of this
    process too, is taken from there.

    :param path: its import path
    :param workflow: the field of that name in the log; empty for a path that the user gives
    """
    module, _, name = path.rpartition(":")
    here = files.system().working_directory()
    recorded = recorded_file(workflow) or (module if is_file_name(module) else None)
    near = None if recorded is None or here is None else _near(recorded, workflow, here)
    around = () if here is None else (here,)
    if is_file_name(module):
        file = Path(near or module).absolute()
        return Place(f"{file}:{name}", (str(file.parent), *around), file=str(file))
    folder = _import_folder(module, near or recorded)
    if folder is None:
        return Place(path, around)
    if near:
        return Place(path, (folder, *around), file=near)
    return Place(path, around, (folder,), file=recorded)


def recorded_file(workflow: Mapping[str, Any]) -> str | None:
    """The file that the workflow was in, as the log has it."""
    found = workflow.get("file")
    return found if isinstance(found, str) else None


def _near(recorded: str, workflow: Mapping[str, Any], here: str) -> str | None:
    """The file in the same place under the working directory; ``None`` if there is none."""
    then = workflow.get("cwd")
    if not isinstance(then, str) or not Path(recorded).is_relative_to(then):
        return None
    near = Path(here, Path(recorded).relative_to(then))
    return str(near) if files.system().is_file(near) else None


def _import_folder(module: str, file: str | None) -> str | None:
    """The folder that a module is imported from, by its name and its file."""
    if file is None:
        return None
    path, names = Path(file).with_suffix(""), module.split(".")
    if path.name == "__init__":
        path = path.parent
    fits = list(path.parts[-len(names) :]) == names
    return str(path.parents[len(names) - 1]) if fits else None
