"""What became of an export, as it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tapps_otel.otel.transport.encoding import id_of

if TYPE_CHECKING:
    from tapps_otel.otel.replay.run_spans import Found

__all__ = ["UNFIT", "Outcome"]

# What a span in a log that somebody made up may raise where it is written.
UNFIT: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
_MOST: Final = 100


@dataclass(slots=True)
class Outcome:
    """Counts what was written, and keeps what was not.

    :ivar count: spans, or rows
    :ivar problems: what went wrong, each with its place; after 100 the last says that there is more
    """

    count: int = 0
    problems: list[str] = field(default_factory=list)

    def leave_out(self, found: Found, error: Exception) -> None:
        """Note a span that no format can hold."""
        self.remark(found, f"span {id_of(found.span)} cannot be written: {error!s:.200}")

    def remark(self, found: Found, text: str) -> None:
        """Note what is wrong with a span."""
        if len(self.problems) < _MOST:
            self.problems.append(f"{found.log}, seq {found.seq}: {text}")
        elif len(self.problems) == _MOST:
            self.problems.append("there are more problems of this kind, which are not told")
