"""A request in halves, where a collector refuses some of its spans.

A collector refuses a request as a whole, for one span that is too large or that it cannot read. So
that this span costs no other, a refused request is sent again in halves, down to the spans that are
refused by themselves.

A collector that fails may refuse everything in the same words. So a span is to blame only if the
collector accepts another one of the same request, or says that the span is too large. What it
refuses besides counts as rejected: it is sent again by the next ``send``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tapps_otel.otel.transport.client import Answer, RefusedError
from tapps_otel.otel.transport.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.otel.transport.client import Client
    from tapps_otel.otel.transport.encoding import Request

__all__ = ["Delivered", "deliver"]

_MOST_IN_ROW: Final = 10  # spans refused one by one, before a refused part is left whole


class Delivered(NamedTuple):
    """A request, or a part of one, and what became of it.

    :ivar answer: of the collector
    :ivar refusal: why it refused the only span for good; empty if it did not
    """

    request: Request
    answer: Answer
    refusal: str = ""


def deliver(
    client: Client, request: Request, *, patience: float | None = None
) -> Iterator[Delivered]:
    """Send a request, in parts where it is refused; yield them in the order of their spans.

    :param patience: for how long each part is retried, seconds
    :raises SendError: the collector could not be reached, failed, or refuses whatever it is sent
    """
    halving = _Halving(client, patience)
    held: list[_Part] = []  # refused, until it is known who is to blame
    for part in halving.parts(request):
        held.append(part)
        if part.refused is None:
            yield from (halving.settled(one) for one in held)
            held.clear()
    yield from (halving.settled(one) for one in held)


class _Part(NamedTuple):
    """A part that is not divided further.

    :ivar refused: the collector's refusal; ``None`` if it accepted the part
    """

    request: Request
    answer: Answer
    refused: RefusedError | None = None


class _Halving:
    """Sends one request in parts."""

    def __init__(self, client: Client, patience: float | None) -> None:
        self._client, self._patience = client, patience
        self._accepts = False  # the collector has accepted a span of it
        self._in_row = 0  # spans that were refused by themselves since then

    def parts(self, request: Request, *, whole: bool = True) -> Iterator[_Part]:
        """Send it, or if it is refused its halves.

        :param whole: it is not a part of a request that was refused
        """
        spans = request.spans
        try:
            answer = self._client.send(request.data, spans=len(spans), patience=self._patience)
        except RefusedError as error:
            refused = error
        else:
            if answer.rejected < len(spans):
                self._accepts, self._in_row = True, 0
            yield _Part(request, answer)
            return
        if (whole or len(spans) == 1) and self._refuses_everything(refused):
            self._client.count_refused(len(spans))
            raise refused
        if len(spans) > 1 and self._in_row < _MOST_IN_ROW:
            middle = len(spans) // 2
            for half in (spans[:middle], spans[middle:]):
                for smaller in encoded(half):
                    yield from self.parts(smaller, whole=False)
            return
        self._in_row += len(spans) == 1
        self._client.count_refused(len(spans))
        yield _Part(request, Answer(), refused)

    def settled(self, part: _Part) -> Delivered:
        """Return what became of a part, by what is known of the others by now."""
        refused = part.refused
        if refused is None:
            return Delivered(part.request, part.answer)
        spans = len(part.request.spans)
        if spans == 1 and (self._accepts or refused.for_size):
            return Delivered(part.request, part.answer, refused.reason)
        return Delivered(part.request, Answer(spans, refused.reason))

    def _refuses_everything(self, refused: RefusedError) -> bool:
        """Whether a request without spans, which is valid, is refused in the same way."""
        try:
            self._client.send(b"", patience=self._patience)
        except RefusedError as error:
            return error.status == refused.status
        return False
