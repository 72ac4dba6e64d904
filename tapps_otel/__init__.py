"""tapps_otel."""
