"""Spans rebuilt from the log, and sent from it."""
