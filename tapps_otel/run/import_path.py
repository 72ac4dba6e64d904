"""Import paths of functions, ``package.module:name`` or ``file.py:name``, both ways."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["import_path_of", "load_object", "module_stem"]

# On a module that was loaded from the path of a file: that path, which is its only name.
_FROM_FILE: Final = "__tapps_otel_file__"


def import_path_of(fn: Callable[..., Any]) -> str | None:
    """Where ``tapps-otel resume`` finds a function; ``None`` if it cannot be found again."""
    module, name = fn.__module__, fn.__qualname__
    loaded_from = getattr(sys.modules.get(module), _FROM_FILE, None)
    if loaded_from is not None:
        return f"{loaded_from}:{name}"
    if module != "__main__":
        return f"{module}:{name}"
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return f"{spec.name}:{name}"
    file = getattr(main, "__file__", None)
    return f"{os.path.abspath(file)}:{name}" if file else None  # noqa: PTH100 - no I/O


def module_stem(fn: Callable[..., Any]) -> str:
    """The last part of the name of a function's module: ``flow``, also where that is the program.

    A script is ``__main__`` in one process and a module in another.
    """
    name = str(getattr(fn, "__module__", None) or "")
    module = sys.modules.get(name)
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        name = spec.name if spec is not None else Path(getattr(module, "__file__", None) or "").stem
    elif (loaded_from := getattr(module, _FROM_FILE, None)) is not None:
        name = Path(loaded_from).stem
    return name.removesuffix(".__main__").rpartition(".")[2]


def load_object(path: str) -> Any:
    """Import what an import path names.

    :raises Exception: whatever the import raises
    """
    module_name, _, name = path.rpartition(":")
    found = _load_module(module_name)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _load_module(name: str) -> Any:
    if not name.endswith(".py"):
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
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        msg = f"{name} is not a Python file"
        raise ImportError(msg)
    module = importlib.util.module_from_spec(spec)
    setattr(module, _FROM_FILE, str(path))
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module
