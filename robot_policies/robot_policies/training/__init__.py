"""Training: one loop for every policy. `robot_policies.training.train.train` is the entry point."""
