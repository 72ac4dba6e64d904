"""``open``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tapps_otel import settings
from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import command, err, out, say_error
from tapps_otel.report.text import plain

__all__ = ["open_trace"]


def open_trace(workflow_id: str, *, log_dir: Path | None) -> Code:
    """``open``: the link on standard output, whatever stands against it on standard error."""
    from tapps_otel.otel.transport import jaeger
    from tapps_otel.run.opening import find
    from tapps_otel.run.queries import events

    _, workflow_id = find(workflow_id, log_dir)
    first = next(events(workflow_id, log_dir=log_dir), None)
    url = (settings.current().jaeger_url or jaeger.STACK_URL).rstrip("/")
    link = None if first is None else jaeger.trace_url(url, first.trace_id)
    if first is None or link is None:
        say_error(f"{plain(workflow_id)} has not begun: there is no trace of it")
        return Code.FAILED
    out().say(link)
    wrong = jaeger.problem(url)
    if wrong is not None:
        say_error(
            f"{url}: {wrong}\n`docker compose up -d --wait` or `collector/stack.sh up` starts this "
            "project's Jaeger; TAPPS_OTEL_JAEGER_URL names another"
        )
        return Code.FAILED
    if not jaeger.has_trace(url, str(first.trace_id)):
        again = command(f"send {plain(workflow_id)}", log_dir)
        err().say(f"that Jaeger does not have it yet: {plain(again)} sends it")
    if _desktop():
        import webbrowser

        webbrowser.open(link)
    return Code.OK


def _desktop() -> bool:
    """Whether somebody looks, and a browser would open in a window of its own."""
    if not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
