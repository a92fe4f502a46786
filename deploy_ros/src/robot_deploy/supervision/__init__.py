"""Who may move the robot, and what takes that away: states, watchdogs."""
