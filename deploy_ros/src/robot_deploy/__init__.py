"""ROS 2 deployment. This release holds the package only; its nodes are not written yet."""

__version__ = "0.1.0"
