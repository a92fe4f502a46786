"""From action chunks to actions: the executors that simulation and the robot share."""
