"""``python encrypted.py FOLDER``: write an encrypted run of today's version, to be kept for ever.

It dies before its end. Make it in a folder like `/tmp/project`, from a copy of this file, and copy
the logs to a folder here that is named after the version.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from tapps_otel import configure, step, workflow

HERE: Final = Path(__file__).parent
KEYS: Final = {"sample": b"a key of a sample, in 32 letters"}
RUN: Final = "encrypted"
INPUT: Final = "ä secret"
RESULT: Final = ["Ä SECRET", 80_000, "a detail"]
ran: list[str] = []


class DetailedError(Exception):
    """It carries more than its message."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__("failed")


@step
def shout(text: str) -> str:
    ran.append("shout")
    return text.upper()


@step
def large(text: str) -> str:
    ran.append("large")
    return text * 10_000


@step
def fail() -> None:
    ran.append("fail")
    raise DetailedError("a detail")


@step
def last() -> None:
    ran.append("last")


@workflow
def flow(text: str) -> list[str | int]:
    found: list[str | int] = [shout(text), len(large(text))]
    try:
        fail()
    except DetailedError as error:
        found.append(error.detail)
    last()
    if os.environ.get("FIRST"):
        os._exit(9)
    return found


if __name__ == "__main__":
    configure(encryption_keys=KEYS, capture_inputs=True, log_dir=Path(sys.argv[1]), spans=False)
    flow.options(workflow_id=RUN)(INPUT)
