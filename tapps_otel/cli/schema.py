"""``schema``: print the JSON Schema of an event."""

from __future__ import annotations

from tapps_otel.cli.codes import Code
from tapps_otel.cli.terminal import write_json

__all__ = ["schema"]


def schema() -> Code:
    """Write the JSON Schema of a log line."""
    from tapps_otel.log.model import json_schema

    write_json(json_schema())
    return Code.OK
