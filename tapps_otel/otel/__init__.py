"""Runs and steps as OpenTelemetry spans. The log comes first; a span never decides anything."""

from __future__ import annotations

__all__: list[str] = []
