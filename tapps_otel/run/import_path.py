"""Import paths of functions, ``package.module:name`` or ``file.py:name``, both ways."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from functools import reduce
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import ModuleSpec

__all__ = [
    "address_of",
    "file_of",
    "is_file_name",
    "load_module",
    "load_object",
    "module_stem",
    "origin_of",
]

# On a module that was loaded from the path of a file: that path, which is its only name.
_FROM_FILE: Final = "__tapps_otel_file__"
_MAIN: Final = ("__main__", "__mp_main__")  # the latter in processes of a pool


def origin_of(fn: Any, names: Iterable[str], is_found: Callable[[Any], bool]) -> dict[str, str]:
    """Where the code of a function is, for a later process that has to find it.

    :param names: that it may have in its module
    :param is_found: whether an object of one of these names leads to it
    :returns: its import ``path``, the ``file`` of its module, and the working directory ``cwd``;
        nothing if it cannot be imported again: it is local to a function, or its module is a
        notebook, or comes from standard input or the command line
    """
    from tapps_otel.log import files  # heavy: not before the first run

    module = _module_of(fn)
    address = address_of(module)
    name = next((one for one in names if is_found(_inside(module, one))), None)
    if address is None or name is None:
        return {}
    places = {"file": file_of(fn), "cwd": files.system().working_directory()}
    known = {key: place for key, place in places.items() if place is not None}
    return {"path": f"{address}:{name}", **known}


def address_of(module: Any) -> str | None:
    """What an import path calls a module: its name, or its file if it has no other.

    ``None`` if it cannot be imported again.
    """
    loaded_from: str | None = getattr(module, _FROM_FILE, None)
    if module is None or loaded_from is not None:
        return loaded_from
    spec = getattr(module, "__spec__", None)
    if module.__name__ not in _MAIN:
        name: str = module.__name__
        return name
    if spec is not None and spec.name not in _MAIN:  # python -m package.module
        return str(spec.name)
    return _file_of_module(module)


def _inside(module: Any, name: str) -> Any:
    """What has this name in a module; ``None`` if nothing has."""
    try:
        return reduce(getattr, name.split("."), module)
    except Exception:  # noqa: BLE001 - of a module's or a class's own code
        return None


def file_of(fn: Any) -> str | None:
    """The file of a function's module, absolute; ``None`` if there is none."""
    return _file_of_module(_module_of(fn))


def _module_of(fn: Any) -> Any:
    return sys.modules.get(getattr(fn, "__module__", None) or "")


def _file_of_module(module: Any) -> str | None:
    from tapps_otel.log import files

    name = getattr(module, "__file__", None)
    if not isinstance(name, str):
        return None
    folder = files.system().working_directory()
    path = Path(os.path.normpath(Path(folder or "/", name)))
    return str(path) if files.system().is_file(path) else None  # not ``<stdin>``


def module_stem(fn: Callable[..., Any]) -> str:
    """The last part of the name of a function's module: ``flow``, also where that is the program.

    A script is ``__main__`` in one process and a module in another.
    """
    name = str(getattr(fn, "__module__", None) or "")
    module = sys.modules.get(name)
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        name = Path(getattr(module, "__file__", None) or "").stem if spec is None else spec.name
    elif (loaded_from := getattr(module, _FROM_FILE, None)) is not None:
        name = Path(loaded_from).stem
    return name.removesuffix(".__main__").rpartition(".")[2]


def load_object(path: str) -> Any:
    """Import what an import path names.

    :raises Exception: whatever the import raises
    """
    module_name, _, name = path.rpartition(":")
    return reduce(getattr, name.split("."), load_module(module_name))


def is_file_name(module: str) -> bool:
    """Whether an import path names a file: a script may lack the ``.py``."""
    return module.endswith(".py") or os.sep in module


def load_module(name: str) -> Any:
    """Import a module, by its name or its file.

    :raises Exception: whatever the import raises
    """
    if not is_file_name(name):
        return importlib.import_module(name)
    path = Path(name).absolute()
    main = sys.modules.get("__main__")
    if Path(getattr(main, "__file__", None) or "").absolute() == path:
        return main
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, _FROM_FILE, None) == str(path):
        return loaded
    # A file may have the name of a module that others need: that module keeps its name.
    module_name = (
        path.stem if loaded is None else f"{path.stem}_{sha256(bytes(path)).hexdigest()[:8]}"
    )
    loader = SourceFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    module = importlib.util.module_from_spec(cast("ModuleSpec", spec))  # a loader makes one
    setattr(module, _FROM_FILE, str(path))
    sys.modules[module_name] = module  # dataclasses and pickle look their module up there
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
