"""The documentation as data: its pages, the code blocks in them, and their tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ROOM_MAP = ROOT / "tapps_otel/README.md"
REFERENCE = ROOT / "tapps_otel/docs"

_MARK = re.compile(r"<!-- (.+) -->")
_FENCE = re.compile(r"```(\w*)")
_FILE = re.compile(r"# (\w+\.\w+)")


@dataclass
class Block:
    """A fenced code block.

    :ivar line: its first line of code in the page, from 1
    :ivar mark: text of the HTML comment on the line before it
    :ivar output: the ``text`` block after it, with nothing but blank lines between
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str | None = None
    output: str = ""

    @property
    def place(self) -> str:
        """Where it is, as editors open it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file that it is: named by a comment in its first line."""
        named = _FILE.fullmatch(self.text.partition("\n")[0])
        return named[1] if named else "example.py"


@dataclass
class Page:
    """A Markdown page, read once."""

    path: Path
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.path.read_text("utf-8")

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return str(self.path.relative_to(ROOT))

    def blocks(self) -> Iterator[Block]:
        """Its code blocks; the output of an example belongs to the example."""
        last: Block | None = None
        for block in self._fenced():
            if block.language == "text" and last is not None and self._adjoin(last, block):
                last.output = block.text
                yield last
                last = None
                continue
            if last is not None:
                yield last
            last = block
        if last is not None:
            yield last

    def _fenced(self) -> Iterator[Block]:
        lines = self.text.splitlines(keepends=True)
        at = 0
        while at < len(lines):
            fence = _FENCE.fullmatch(lines[at].rstrip())
            at += 1
            if fence is None:
                continue
            start = at
            while lines[at].rstrip() != "```":
                at += 1
            mark = _MARK.fullmatch(lines[start - 2].rstrip()) if start > 1 else None
            yield Block(
                self.path,
                start + 1,
                fence[1],
                "".join(lines[start:at]),
                mark[1] if mark else None,
            )
            at += 1

    def _adjoin(self, first: Block, second: Block) -> bool:
        end = first.line - 1 + first.text.count("\n") + 1  # behind its closing fence
        between = self.text.splitlines()[end : second.line - 2]
        return not any(line.strip() for line in between)

    def table(self, heading: str) -> list[list[str]]:
        """The rows of the table whose first column has this heading, cell by cell."""
        lines = self.text.splitlines()
        start = next(at for at, line in enumerate(lines) if line.startswith(f"| {heading} |"))
        rows = []
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))])
        return rows


def pages() -> list[Page]:
    """Every page that this project's users and maintainers read, but the collector's."""
    return [Page(path) for path in (README, ROOM_MAP, *sorted(REFERENCE.glob("*.md")))]


def reference(topic: str) -> Page:
    """A page of the reference."""
    return Page(REFERENCE / f"{topic}.md")


def code(cell: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", cell)
