"""A checker of logs written from the format's description, without code of this package.

Every line carries ``sha`` = SHA-256 of the previous line's sha (line 1: the hex SHA-256 of its own
workflow_id) and the line's bytes before its last 75. Bytes that do not chain must be declared, with
offset, length and hash, by the next ``log_repair`` after them; so must lines between that do chain.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any


def check(path: Path) -> list[dict[str, Any]]:
    """Return the log's events; raise ``AssertionError`` if anything is wrong."""
    data = path.read_bytes()
    events: list[dict[str, Any]] = []
    sha: str | None = None
    offset = good = 0  # start of the current line; end of the last good one
    for text in data.split(b"\n"):
        line = text + b"\n"  # a last record may lack its newline
        due = sha256((sha or first(line)).encode() + line[:-75]).hexdigest()
        if line.endswith(b',"sha":"%b"}\n' % due.encode()):
            event = json.loads(line)
            if offset > good and event["event_type"] != "log_repair":
                offset += len(line)
                continue
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


def first(line: bytes) -> str:
    """Return what the first line is chained to."""
    try:
        workflow_id = json.loads(line)["workflow_id"]
    except (ValueError, TypeError, KeyError):  # torn: the line after it is the first
        return ""
    return sha256(workflow_id.encode("utf-8", "surrogatepass")).hexdigest()
