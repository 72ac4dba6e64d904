"""Spans of libraries, captured in the logs of runs."""
