"""Across logs and spans: whether what one says is what the other says. Changes nothing."""
