"""OpenTelemetry in this process: setting providers up, forking, and the flush at exit."""
