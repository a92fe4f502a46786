"""The environment that nodes and their helper processes run in.

The wheels of rclpy restart every interpreter once, to set ``LD_LIBRARY_PATH``, and mark that in a variable that
children inherit. A child of another virtual environment would then run with this one's libraries, so helper
processes get both variables taken away and set their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
_LIBRARIES = "LD_LIBRARY_PATH"
_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PARENT = "ROBOT_DEPLOY_PARENT"
"""Process id of who started a node and must not be outlived by it, however it ends."""


def prepare() -> None:
    """Set what nobody has set: discovery on this machine only, and the prefix of rclpy from PyPI.

    Call it before ``rclpy.init``. A robot's controller on another computer needs
    ``ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET``, which is then somebody's decision and not a default.
    """
    if "ROS_LOCALHOST_ONLY" not in os.environ:  # the older way to say the same
        os.environ.setdefault(_RANGE, "LOCALHOST")
    if _BOOTSTRAPPED in os.environ:
        os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a Python process started by a node.

    Args:
        changes: Variables to set on top.
    """
    environment = dict(os.environ)
    if environment.pop(_BOOTSTRAPPED, None):
        environment.pop(_LIBRARIES, None)
    return {**environment, **(changes or {})}
