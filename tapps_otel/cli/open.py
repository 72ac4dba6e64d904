"""``open``: the link to a run's trace in Jaeger."""

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
    """Print the link, and open it on a desktop; problems go to standard error."""
    from tapps_otel.otel.transport import jaeger
    from tapps_otel.run.lookup import find
    from tapps_otel.run.queries import events

    _, workflow_id = find(workflow_id, log_dir)
    first = next(events(workflow_id, log_dir=log_dir), None)
    url = (settings.current().jaeger_url or jaeger.STACK_URL).rstrip("/")
    link = None if first is None else jaeger.trace_url(url, first.trace_id)
    if first is None or link is None:
        show = command(f"show {workflow_id}", log_dir)
        say_error(f"{workflow_id} has no trace, as it has not begun: `{show}` shows its log")
        return Code.FAILED
    out().say(link)
    problem = jaeger.problem(url)
    if problem is not None:
        say_error(
            f"{url}: {problem}\n`docker compose up -d --wait` or `collector/stack.sh up` starts "
            "this project's Jaeger; TAPPS_OTEL_JAEGER_URL names another"
        )
        return Code.FAILED
    if not jaeger.has_trace(url, str(first.trace_id)):
        send = plain(command(f"send {workflow_id}", log_dir))
        err().say(f"this Jaeger does not have the trace yet: `{send}` sends it")
    if _is_desktop():
        import webbrowser

        webbrowser.open(link)
    return Code.OK


def _is_desktop() -> bool:
    """Whether a person is watching, and a browser would open in its own window."""
    if not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
