"""Libraries that are known by their OpenTelemetry spans: rules find runs and steps in them."""
