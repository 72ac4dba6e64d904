"""Spans of libraries, kept in the run's log."""
