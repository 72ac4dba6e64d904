"""Values as JSON by way of their annotations, and back: equal, and of the same class."""
