"""Events of the log as content of spans, and spans as JSON and back."""
