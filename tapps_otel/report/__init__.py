"""What people look at, made from a run's history: text, without colours and without a terminal."""
