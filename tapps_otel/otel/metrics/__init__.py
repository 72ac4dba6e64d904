"""Metrics of runs, steps, logs and sends."""
