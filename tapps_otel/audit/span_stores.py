"""Where a run's spans are kept: a file that somebody wrote, or a Jaeger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tapps_otel.audit.otlp_json import read_spans
from tapps_otel.errors import SpansError
from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.audit.normalized_span import Meaning

__all__ = ["File", "Place"]


class Place(ABC):
    """Spans that somebody else keeps. They can be read more than once.

    :ivar name: what it is called in messages, without secrets
    :ivar lacks: what :meth:`reduce` takes from a span, in words; empty if nothing
    :ivar notes: what was passed over in reading it
    """

    lacks = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []

    def spans(self, wanted: Callable[[str, str], bool]) -> Iterator[Meaning]:
        """Its spans, streamed.

        :param wanted: whether spans of this trace id and of this scope's name are asked for
        :raises SpansError: they cannot be read
        """
        self.notes.clear()
        with self._open() as file:
            yield from read_spans(file, self.name, wanted, self.notes)

    def reduce(self, span: Meaning) -> Meaning:
        """What places of this kind keep of a span at the least."""
        return span

    @abstractmethod
    def _open(self) -> BinaryIO:
        """What is there, as OTLP JSON lines."""


class File(Place):
    """A file of OTLP JSON lines."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(str(path))
        self._path = Path(path)

    def _open(self) -> BinaryIO:
        try:
            return _files.system().open_given(self._path)
        except OSError as error:
            reason = f"it cannot be opened: {error.strerror or error}. Give a file or a URL"
            raise SpansError(self.name, reason) from None
