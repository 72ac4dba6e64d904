"""Checks of a run's log, by itself and against sent spans, and exports of it."""
