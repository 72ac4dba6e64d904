"""Runs: workflows and steps are executed, recorded and resumed."""
