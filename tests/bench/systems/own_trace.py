"""This project: six steps, each of which says when it begins; called again it resumes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tapps_otel import step, workflow


@step
def work(i: int) -> int:
    """One step."""
    Path(f"began-{i}").touch()
    time.sleep(float(sys.argv[1]))
    return i


@workflow
def six() -> int:
    """The run."""
    return sum(work(i) for i in range(1, 7))


if __name__ == "__main__":
    six.options(workflow_id="six")()
