"""Requests to a collector, and to Jaeger."""
