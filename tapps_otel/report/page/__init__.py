"""A run's timeline as one HTML file, which needs no network and no other file."""
