"""What a session writes: a line with its large values, unless another process has the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from tapps_otel.errors import BlobDamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapps_otel.log.blobs import Blobs
    from tapps_otel.log.event import Event
    from tapps_otel.log.postgres.holding import Hold
    from tapps_otel.log.postgres.pipeline import Pipeline

__all__ = ["STATEMENTS", "blobs_of", "send_line", "values_of"]

# No line is written without the one before it: if a statement fails, the later ones write nothing.
_LINE: Final = (
    b"INSERT INTO tapps_otel.lines (run, seq, bytes) SELECT $1::integer, $3::bigint, $4::bytea "
    b"FROM tapps_otel.runs WHERE id = $1 AND token = $2::uuid AND ($3 = 1 OR EXISTS "
    b"(SELECT FROM tapps_otel.lines WHERE run = $1 AND seq = $3 - 1))"
)
STATEMENTS: Final = {
    b"line": _LINE,
    # A line whose commit is waited for.
    b"safe line": _LINE + b" AND set_config('synchronous_commit', $5::text, true) <> ''",
    b"blob": (
        b"INSERT INTO tapps_otel.blobs (run, name, bytes) SELECT $1::integer, $3::text, $4::bytea "
        b"FROM tapps_otel.runs WHERE id = $1 AND token = $2::uuid "
        b"ON CONFLICT (run, name) DO UPDATE SET name = EXCLUDED.name"
    ),
    # After other lines. A commit is only waited for if the transaction has written something.
    b"safe": (
        b"SELECT set_config('synchronous_commit', $1::text, true), "
        b"pg_logical_emit_message(true, 'tapps_otel', '')"
    ),
}


def send_line(
    pipeline: Pipeline,
    hold: Hold,
    seq: int,
    line: bytes,
    values: Iterable[tuple[str, bytes]],
    *,
    commit_mode: bytes | None = None,
) -> None:
    """Send a line, and before it the large values that it names.

    :param commit_mode: how safe the commit of its transaction is to be, if it is waited for
    :raises psycopg.Error: the connection has ended
    """
    ours = (hold.run.to_bytes(4), hold.token.bytes)
    for name, value in values:
        pipeline.send(b"blob", [*ours, name.encode(), value])
    if commit_mode is None:
        pipeline.send(b"line", [*ours, seq.to_bytes(8), line])
    else:
        pipeline.send(b"safe line", [*ours, seq.to_bytes(8), line, commit_mode])


def values_of(blobs: Blobs, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the large values of these names, without damaged ones: `verify` finds those."""
    for name in names:
        try:
            value = blobs.stored(name)
        except BlobDamagedError:
            continue
        yield name, value


def blobs_of(event: Event) -> list[str]:
    """Return the names of the large values of an event."""
    names = (event.inputs_blob, event.result_blob, event.otel_blob)
    return [name for name in names if name is not UNSET]
