"""Events of the audit log as log records of OpenTelemetry, if that is asked for."""
