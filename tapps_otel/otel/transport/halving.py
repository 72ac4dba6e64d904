"""A request in halves, where a collector refuses some of its spans.

A collector refuses a request as a whole, for one span that is too large or that it cannot read. So
that this span costs no other, a refused request is sent again in halves, down to the spans that are
refused by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tapps_otel.otel.transport.client import Answer, RefusedError
from tapps_otel.otel.transport.encoding import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapps_otel.otel.transport.client import Client
    from tapps_otel.otel.transport.encoding import Request

__all__ = ["Delivered", "deliver"]


class Delivered(NamedTuple):
    """A request, or a part of one, and what became of it.

    :ivar answer: of the collector, if it accepted the request
    :ivar refusal: why its only span was refused; empty if it was not
    """

    request: Request
    answer: Answer
    refusal: str = ""


def deliver(
    client: Client, request: Request, *, patience: float | None = None, part: bool = False
) -> Iterator[Delivered]:
    """Send a request, in parts where it is refused; yield them in the order of their spans.

    :param patience: for how long each part is retried, seconds
    :param part: of a request that was refused
    :raises SendError: the collector could not be reached, or refuses whatever it is sent
    """
    spans = request.spans
    try:
        answer = client.send(request.data, spans=len(spans), patience=patience)
    except RefusedError as error:
        if (not part or len(spans) == 1) and _refuses_everything(client, error, patience):
            client.count_refused(len(spans))
            raise
        refusal = error.reason
    else:
        yield Delivered(request, answer)
        return
    if len(spans) == 1:
        client.count_refused(1)
        yield Delivered(request, Answer(), refusal)
        return
    middle = len(spans) // 2
    for half in (spans[:middle], spans[middle:]):
        for smaller in encoded(half):
            yield from deliver(client, smaller, patience=patience, part=True)


def _refuses_everything(client: Client, refused: RefusedError, patience: float | None) -> bool:
    """Whether a request without spans, which is valid, is refused in the same way."""
    try:
        client.send(b"", patience=patience)
    except RefusedError as error:
        return error.status == refused.status
    return False
