"""How often a resume opens the log: once to look at it, once more under the lease."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from commands import Cli
from tapps_otel import resume
from tapps_otel.log import files

SOURCE = """
from tapps_otel import step, workflow
from tapps_otel.log import files

@step
def work() -> int:
    return 1

@workflow
def main() -> int:
    work()
    opens = getattr(files.system(), "opens", None)
    if opens is None:
        raise ValueError("not yet")
    opens.append("the first step was answered")
    return work()
"""


class CountingFiles(files.Files):
    """The real calls; notes which of them opens a log."""

    def __init__(self) -> None:
        self.opens: list[str] = []

    def open_read(self, path: Path) -> BinaryIO:
        self._note("read", path)
        return super().open_read(path)

    def open_append(self, path: Path, *, create: bool) -> int:
        self._note("append", path)
        return super().open_append(path, create=create)

    def _note(self, how: str, path: Path) -> None:
        if path.suffix == ".jsonl":
            self.opens.append(how)

    @property
    def before_the_first_answer(self) -> list[str]:
        return self.opens[: self.opens.index("the first step was answered")]


@pytest.fixture
def failed(cli: Cli) -> CountingFiles:
    Path("flow_count.py").write_text(SOURCE, "utf-8")
    assert cli("run", "flow_count.py:main", "--id", "r", "-q").code == 1
    return CountingFiles()


@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_the_command_opens_the_log_twice(
    cli: Cli, failed: CountingFiles, options: tuple[str, ...]
) -> None:
    with files.use(failed):
        assert cli("resume", "r", *options).code == 0

    assert failed.before_the_first_answer == ["read", "append"]


@pytest.mark.parametrize("last", ["--last", "@last"])
def test_finding_the_last_run_opens_its_log_once_more(
    cli: Cli, failed: CountingFiles, last: str
) -> None:
    with files.use(failed):
        assert cli("resume", last).code == 0

    assert failed.before_the_first_answer == ["read", "read", "append"]


def test_the_function_opens_the_log_twice(failed: CountingFiles) -> None:
    with files.use(failed):
        assert resume("r") == 1

    assert failed.before_the_first_answer == ["read", "append"]
