"""otel"""
