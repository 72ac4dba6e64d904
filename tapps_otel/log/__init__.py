"""The durable audit log: one append-only JSONL file a run, hash-chained, one writer."""
