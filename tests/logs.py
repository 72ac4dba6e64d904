"""Events, logs and clocks for tests of the log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from tapps_otel import clock
from tapps_otel.log.event import Event, raw_json
from tapps_otel.log.files import Files
from tapps_otel.log.reader import read
from tapps_otel.log.writer import LogWriter

ID = "r"
AT = 1_763_000_000_000_000_000  # 2025-11-13
BOOT = "11111111-1111-4111-8111-111111111111"


class Settable:
    """A clock that advances only when a test sets it, or by its own ``sleep``."""

    def __init__(self, ns: int = AT, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.now, self._on_sleep = ns, on_sleep

    def time_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        self._on_sleep()


class Unsynced(Files):
    """Files without syncs, for tests that open thousands and do not look at durability."""

    def sync(self, descriptor: int) -> None: ...
    def sync_folder(self, path: Path) -> None: ...
    def evict(self, descriptor: int) -> None: ...


def event(event_type: str, mark: object = None, **fields: Any) -> Event:
    """Make an event with all required fields; :func:`marks` finds its ``mark`` in the log."""
    if mark is not None:
        fields["attributes"] = {"mark": mark} | fields.get("attributes", {})
    if event_type.startswith("step_"):
        place = f"draft#{mark}" if mark else "draft"
        step: dict[str, Any] = {
            "step_id": place,
            "step": "draft",
            "agent": "writer",
            "action": None,
            "attempt": 1,
        }
        fields = step | fields
    always: dict[str, Any] = {"execution": 1, "workflow_id": ID, "timestamp": clock.timestamp(AT)}
    return Event(event_type=event_type, **(always | fields))


def start(workflow_id: str = ID, *, name: str = "article", **fields: Any) -> Event:
    """Make the first event of a run."""
    process = {"pid": 1, "host": "h", "boot_id": BOOT, "durability": "commit"}
    fields = {"workflow": {"name": name}, "process": process, "status": "running"} | fields
    return event("workflow_start", workflow_id=workflow_id, **fields)


def story() -> list[Event]:
    """Make all events of a short run."""
    return [
        start(inputs=raw_json({"url": "https://example.org/ä"})),
        event("step_start", 1),
        event("step_finish", 1, status="completed", result=raw_json([1, "two"])),
        event("annotation", 2, name="note"),
        event("step_start", 3),
        event("step_fail", 3, status="failed", error={"type": "ValueError", "message": "no"}),
        event("workflow_end", 4, status="failed"),
    ]


@contextmanager
def writing(path: Path, workflow_id: str | None = None, **options: Any) -> Iterator[LogWriter]:
    """Open a writer, and close it at the end of the block."""
    writer = LogWriter(path, workflow_id or path.stem, **options)
    try:
        yield writer
    finally:
        writer.close()


def write(path: Path, events: Iterable[Event], **options: Any) -> bytes:
    """Write a log, and return its bytes."""
    with writing(path, **options) as writer:
        for one in events:
            writer.append(one)
    return path.read_bytes()


def forge(folder: Path, workflow_id: str, events: Iterable[dict[str, Any]]) -> Path:
    """Write a log with any fields and a correct hash chain, as an attacker could."""
    folder.mkdir(parents=True, exist_ok=True)
    path, sha = folder / f"{workflow_id}.jsonl", sha256(workflow_id.encode()).hexdigest()
    with path.open("wb") as file:
        for seq, one in enumerate(events, 1):
            at = "2026-11-24T00:00:00.000000000Z"
            fields = {"v": 1, "seq": seq, "event_type": "", "workflow_id": workflow_id}
            fields |= {"timestamp": at, "execution": 1, **one}
            body = json.dumps(fields, separators=(",", ":")).encode()[:-1]
            sha = sha256(sha.encode() + body).hexdigest()
            file.write(body + b',"sha":"' + sha.encode() + b'"}\n')
    return path


def lines_of(data: bytes) -> list[bytes]:
    """Split a log into lines that keep their newlines."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def marks(path: Path) -> list[Any]:
    """Return the marks of a log's events, in order, as the reader finds them."""
    return [
        one.attributes["mark"]
        for one in read(path, path.stem)
        if isinstance(one.attributes, dict) and "mark" in one.attributes
    ]
