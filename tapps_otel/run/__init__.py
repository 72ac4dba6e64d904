"""Runs: workflows and steps being carried out, recorded, and gone on with."""
