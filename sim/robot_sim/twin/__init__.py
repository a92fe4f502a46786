"""The digital twin of one physical cell: a simulation that is continuously corrected to match it (Real-is-Sim).

How the parts meet::

    cell (a robot, or a surrogate)          twin
    ------------------------------          ----------------------------------------------------------
    ObservedState: stamp, joints,    -->    Twin.tick(observed): filter, predict, correct, report
    object poses + covariance, images       |- TwinWorld: bodies, poses, wrenches, the arm's drive
                                            |- PoseFilter: how far the twin is off, with covariance
                                            |- Correction: what pulls the bodies (none|reset|force|weld)
                                            '- TwinReport: synchronisation error, covariance, state

`observed` and `correction` are the two interfaces that other sources of corrections (images) are written against.
World frame: metres, radians, seconds; stamps are nanoseconds of one monotonic clock; quaternions are wxyz.
"""
