"""Across logs and spans: what other programs make of a run, and whether the two agree."""
