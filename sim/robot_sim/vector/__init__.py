"""Many environments of one scene in one process: states as arrays, stepped by MuJoCo's threads or on a GPU."""
