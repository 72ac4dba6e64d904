"""Import paths: modules and files are loaded once, and keep the names of others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tapps_otel.run.import_path import (
    address_of,
    is_file_name,
    load_module,
    load_object,
    module_stem,
    origin_of,
)

CODE = """
def outer():
    pass

class Box:
    @staticmethod
    def inner():
        pass
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a file below the working directory; what is loaded of them is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name: str, code: str = CODE) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_is_loaded_once(write: Write) -> None:
    path = write("flow_of_this_test.py")
    module = load_module(path.name)

    assert module.__name__ == "flow_of_this_test"
    assert sys.modules["flow_of_this_test"] is module
    assert load_module(str(path)) is module
    assert address_of(module) == str(path)


def test_files_of_one_name_are_two_modules(write: Write) -> None:
    first, second = (load_module(str(write(f"{folder}/flow_of_this_test.py"))) for folder in "ab")

    assert first is not second
    assert sys.modules["flow_of_this_test"] is first
    assert sys.modules[second.__name__] is second
    assert second.__name__.startswith("flow_of_this_test_")
    assert (first.__file__, second.__file__) == (address_of(first), address_of(second))
    assert module_stem(second.outer) == module_stem(first.outer) == "flow_of_this_test"


def test_a_file_with_the_name_of_an_imported_module_leaves_that_alone(write: Write) -> None:
    import json

    module = load_module(str(write("json.py")))

    assert sys.modules["json"] is json
    assert module is not json
    assert hasattr(module, "outer")


def test_a_script_without_an_extension_is_loaded(write: Write) -> None:
    path = write("folder/flow_of_this_test")

    assert load_object(f"{path}:Box.inner").__qualname__ == "Box.inner"


def test_the_program_itself_is_not_loaded_again(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = ModuleType("__main__")
    program.__file__ = str(write("program.py"))
    monkeypatch.setitem(sys.modules, "__main__", program)

    assert load_module("program.py") is program


def test_a_file_that_cannot_be_executed_is_not_kept(write: Write) -> None:
    path = write("flow_of_this_test.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_module(str(path))

    assert "flow_of_this_test" not in sys.modules


def test_a_module_is_imported_by_its_name() -> None:
    assert load_object("os.path:join") is __import__("os").path.join


@pytest.mark.parametrize(
    ("name", "expected"),
    [("flow.py", True), ("a/flow", True), ("flow", False), ("package.flow", False)],
)
def test_what_names_a_file(name: str, expected: bool) -> None:
    assert is_file_name(name) is expected


def test_where_the_code_of_a_function_is(write: Write, tmp_path: Path) -> None:
    path = write("flow_of_this_test.py")
    inner = load_module(str(path)).Box.inner
    names = ["inner", "Box.inner"]

    assert origin_of(inner, names, lambda found: found is inner) == {
        "path": f"{path}:Box.inner",
        "file": str(path),
        "cwd": str(tmp_path),
    }
    assert origin_of(inner, ["inner", "Box.other"], lambda found: found is inner) == {}
    assert origin_of(write, ["write"], lambda found: found is write) == {}
