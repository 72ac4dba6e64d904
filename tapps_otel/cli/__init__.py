"""The command line: arguments to one call of the library, its answer to text and an exit code.

Everything heavy is imported inside the command that needs it, so that ``--help`` is quick.
"""

from __future__ import annotations

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Carry out a command, and exit with its code."""
    from tapps_otel.cli.app import app
    from tapps_otel.cli.terminal import safe_logging, tolerant_streams

    tolerant_streams()
    safe_logging()
    app(args=arguments, prog_name="tapps-otel")
