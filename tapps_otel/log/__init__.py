"""The durable audit log: an append-only JSONL file for each run, with a hash chain."""
