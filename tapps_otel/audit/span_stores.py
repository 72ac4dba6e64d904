"""Stores of sent spans, which a run's log is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tapps_otel.audit.otlp_json import read_spans
from tapps_otel.errors import SpansError
from tapps_otel.log import files as _files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapps_otel.audit.normalized_span import NormalizedSpan

__all__ = ["FileStore", "SpanStore"]


class SpanStore(ABC):
    """Spans kept outside the log. They can be read more than once.

    :ivar name: of the store in messages, without secrets
    :ivar lacks: what :meth:`reduce` removes from a span, in words; empty if nothing
    :ivar notes: what the last reading skipped
    """

    lacks = ""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []

    def spans(self, wanted: Callable[[str, str], bool]) -> Iterator[NormalizedSpan]:
        """Stream the spans.

        :param wanted: takes a trace id and a scope's name; returns whether to yield such spans
        :raises SpansError: they cannot be read
        """
        self.notes.clear()
        with self._open() as file:
            yield from read_spans(file, self.name, wanted, self.notes)

    def reduce(self, span: NormalizedSpan) -> NormalizedSpan:
        """Return what every store of this kind keeps of a span."""
        return span

    @abstractmethod
    def _open(self) -> BinaryIO:
        """Open the spans as OTLP JSON lines."""


class FileStore(SpanStore):
    """A file of OTLP JSON lines."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(str(path))
        self._path = Path(path)

    def _open(self) -> BinaryIO:
        try:
            return _files.system().open_user_file(self._path)
        except OSError as error:
            reason = f"it cannot be opened: {error.strerror or error}. Give a file or a URL"
            raise SpansError(self.name, reason) from None
