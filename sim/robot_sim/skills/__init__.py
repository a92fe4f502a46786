"""Skills: what an arm does with objects, as sequences of waypoints that any arm can follow."""
