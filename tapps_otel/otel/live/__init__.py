"""Spans of runs in progress, made as their events are written."""
