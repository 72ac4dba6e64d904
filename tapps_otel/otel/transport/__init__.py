"""The client of a collector, and of Jaeger."""
