"""From a finished span to a collector, by a provider that is built here."""
