"""Many environments of one scene in one process: states as arrays, stepped by MuJoCo's native thread pool."""
