"""Checks a run's log by the text of the format alone: standard library, nothing of the project.

Every line carries ``sha`` = SHA-256 of the previous line's sha (line 1: the hex SHA-256 of the
workflow_id, also in a log beside the run's, ``<workflow_id>+<hex>``) and the line's bytes before
its last 75. Bytes that do not chain must be declared, with offset, length and hash, by the
``log_repair`` that stands next after them.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any


def check(path: Path) -> list[dict[str, Any]]:
    """Give the log's events; ``AssertionError`` for anything that is not as it must be."""
    data = path.read_bytes()
    events: list[dict[str, Any]] = []
    sha = sha256(path.stem.partition("+")[0].encode()).hexdigest()
    offset = good = 0  # where the line at hand begins; where the last good line ends
    for text in data.split(b"\n"):
        line = text + b"\n"  # a last record may lack its newline
        due = sha256(sha.encode() + line[:-75]).hexdigest()
        if line.endswith(b',"sha":"%b"}\n' % due.encode()):
            event = json.loads(line)
            begin = b'{"v":1,"seq":%d,"event_type":"%b",'
            assert line.startswith(begin % (len(events) + 1, event["event_type"].encode())), line
            for start, length, digest in event.get("damage", []):
                assert start == good, f"bytes {good} to {start} are not accounted for"
                assert sha256(data[start : start + length]).hexdigest() == digest
                good += length
            assert good == offset, f"bytes {good} to {offset} are not accounted for"
            events.append(event)
            sha, good = due, offset + len(line)
        offset += len(line)
    assert good >= len(data), f"damage from byte {good}"
    return events
