"""What a run's log says, folded into runs, steps and attempts. Pure."""
