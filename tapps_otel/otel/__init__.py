"""Runs and steps as OpenTelemetry spans and metrics.

The log comes first: no span ever decides what a run does.
"""

from __future__ import annotations

__all__: list[str] = []
