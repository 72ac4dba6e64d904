"""The command line: arguments to one library call, its answer to text and an exit code.

Each command imports what is heavy when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and exit with its code.

    :param arguments: by default those of the process
    """
    from tapps_otel.cli.app import run_app
    from tapps_otel.cli.terminal import make_logging_safe, make_streams_tolerant

    make_streams_tolerant()
    make_logging_safe()
    sys.exit(run_app([*(sys.argv[1:] if arguments is None else arguments)]))
