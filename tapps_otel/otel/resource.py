"""This process as a resource of telemetry, without OpenTelemetry.

A run without an SDK notes it in its log, so that spans which are made from the log later name the
process that they came from, whichever process sends them.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import PurePath
from urllib.parse import unquote

__all__ = ["of_process", "program"]


def of_process() -> dict[str, str | int]:
    """Return attributes of this process: its host, its id, its service.

    ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` add to them, as in an SDK
    (OpenTelemetry specification, Resource SDK, "Specifying resource information via an
    environment variable").
    """
    attributes: dict[str, str | int] = {
        "service.name": program(),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            attributes[name.strip()] = unquote(value.strip())
    if name := os.environ.get("OTEL_SERVICE_NAME", "").strip():
        attributes["service.name"] = name
    return attributes


def program() -> str:
    """Return the program's name: `build` for `build.py`, `tool` for `python -m tool`."""
    path = PurePath(sys.argv[0] if sys.argv else "")
    name = path.parent.name if path.name == "__main__.py" else path.name.removesuffix(".py")
    return name if name not in {"", "-c", "-m", "-"} else "tapps_otel"
