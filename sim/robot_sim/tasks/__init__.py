"""Tasks, one file each; `robot_sim.registry` finds them by name."""
