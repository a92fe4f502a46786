"""From actions to actuator inputs, for whole batches at once, in NumPy."""
