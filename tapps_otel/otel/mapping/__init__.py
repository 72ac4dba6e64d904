"""What an event is on a span, and back."""
