"""A run's history: its log, folded into executions, steps and attempts. Pure."""
