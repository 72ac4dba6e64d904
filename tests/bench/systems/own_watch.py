"""This project: what ``watch`` takes of a core while nothing happens in the run.

On a terminal of its own, as a person watches: the CPU time of a watch that lasts ``n`` seconds
longer than another, so that the start of the program does not count.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from tapps_otel.log.lease import Lease

from .common import Arguments, answer, arguments
from .made_logs import events, write_events


def watch_s(folder: Path, seconds: float) -> float:
    """CPU seconds of a watch that is ended ``seconds`` after it has shown the run."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, "-m", "tapps_otel", "watch", "bench", "--log-dir", str(folder)]
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"finished" not in shown:
        shown += os.read(ours, 65536)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.set_blocking(ours, False)
        try:
            os.read(ours, 65536)  # so that it can write
        except BlockingIOError:
            time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, _, used = os.wait4(process.pid, 0)
    os.close(ours)
    return used.ru_utime + used.ru_stime


def measure(args: Arguments) -> dict[str, float]:
    """The share of a core, in percent."""
    folder = args.folder / "log"
    folder.mkdir(mode=0o700)
    *begun, _ = events("bench", 2_002)  # without its end
    write_events(folder / "bench.jsonl", "bench", begun)
    lease = Lease(folder / "bench.lease", "bench")  # as the process has it that executes the run
    try:
        start = watch_s(folder, 0)
        whole = watch_s(folder, args.n)
    finally:
        lease.release()
    return {"idle_percent": 100 * max(0.0, whole - start) / args.n, "start_ms": start * 1e3}


if __name__ == "__main__":
    answer("rich", **measure(arguments()))
