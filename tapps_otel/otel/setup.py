"""Setting OpenTelemetry up where nobody has, and leaving it in bounded time."""
