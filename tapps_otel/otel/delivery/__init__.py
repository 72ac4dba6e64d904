"""What sends live spans to a collector."""
