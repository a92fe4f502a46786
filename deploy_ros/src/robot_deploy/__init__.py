"""ROS 2 deployment: lifecycle nodes that run a checkpoint on a robot.

This release holds the package only, so that it builds with colcon and installs with pip; its nodes are not
written yet.
"""

__version__ = "0.1.0"
