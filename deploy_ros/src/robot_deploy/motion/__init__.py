"""Motion that can always be stopped: limits, stops, the safety filter, chunks to trajectories."""
