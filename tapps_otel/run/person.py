"""Who decides something about a run, for the log."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any

__all__ = ["person"]


def person() -> dict[str, Any]:
    """User, host and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = f"uid {os.getuid()}"
    return {"user": user, "host": socket.gethostname(), "pid": os.getpid()}
