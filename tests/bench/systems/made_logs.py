"""Logs made with this project's own encoder, as its writer would have written them.

Fast to make: ``own_read`` and ``own_list`` measure on them, where a real run would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tapps_otel import names
from tapps_otel.clock import timestamp
from tapps_otel.log.event import Event, encode, genesis, raw_json

from .common import Arguments, arguments, result

BEGAN_NS = 1_790_000_000_000_000_000
DIGEST = "5f" * 32
BUFFER = 1 << 20


def events(workflow_id: str, count: int) -> Iterator[Event]:
    """A whole run of ``count`` events: its start, pairs of a step's start and finish, its end."""
    common: dict[str, Any] = {"workflow_id": workflow_id, "trace_id": "4b" * 16, "execution": 1}
    yield Event(
        event_type="workflow_start",
        seq=1,
        timestamp=timestamp(BEGAN_NS),
        span_id="00f067aa0ba902b7",
        status="running",
        inputs=raw_json({"n": count}),
        workflow={"name": "steps", "path": "bench:steps"},
        process={"pid": 4711, "host": "bench", "durability": "commit"},
        **common,
    )
    for seq in range(2, count - 1, 2):
        yield from _step(seq, common)
    yield Event(
        event_type="workflow_end",
        seq=count,
        timestamp=timestamp(BEGAN_NS + count * 70_000),
        span_id="00f067aa0ba902b7",
        status="completed",
        result=raw_json(count),
        duration_ns=count * 70_000,
        **common,
    )


def _step(seq: int, common: dict[str, Any]) -> Iterator[Event]:
    i = seq // 2
    place: dict[str, Any] = {
        **common,
        "span_id": f"{i:016x}",
        "parent_span_id": "00f067aa0ba902b7",
        "step_id": names.join_step_id(None, "work", i),
        "step": "work",
        "agent": None,
        "action": None,
        "attempt": 1,
    }
    at = BEGAN_NS + seq * 70_000
    yield Event(
        event_type="step_start",
        seq=seq,
        timestamp=timestamp(at),
        order=i,
        status="running",
        inputs_digest=DIGEST,
        definition=DIGEST[:16],
        **place,
    )
    yield Event(
        event_type="step_finish",
        seq=seq + 1,
        timestamp=timestamp(at + 70_000),
        status="completed",
        result=raw_json(result(i)),
        duration_ns=70_000,
        **place,
    )


def write(path: Path, workflow_id: str, count: int) -> None:
    """Write a run of ``count`` events (an even number)."""
    write_events(path, workflow_id, events(workflow_id, count))


def write_events(path: Path, workflow_id: str, found: Iterable[Event]) -> None:
    """Write the log of these events."""
    sha = genesis(workflow_id)
    with path.open("wb", buffering=BUFFER) as file:
        for event in found:
            line, sha = encode(event, sha)
            file.write(line)


def main(args: Arguments) -> None:
    """One log of ``n`` events; with the option ``runs`` a folder of ``n`` short ones.

    With ``pair`` there is another one, of a run with one step less.
    """
    folder = args.folder / "log"
    folder.mkdir(mode=0o700)
    if args.option != "runs":
        write(folder / "bench.jsonl", "bench", args.n)
        if args.option == "pair":
            write(folder / "other.jsonl", "other", args.n - 2)
        return
    for i in range(args.n):
        write(folder / f"bench-{i:06}.jsonl", f"bench-{i:06}", 6)


if __name__ == "__main__":
    main(arguments())
