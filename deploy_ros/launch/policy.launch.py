"""A policy on a robot: ``ros2 launch robot_deploy policy.launch.py deployment:=my_cell.yaml``.

The node comes up unconfigured and in the mode of its deployment, ``dry_run`` unless that says otherwise. Configure
and activate it yourself (docs/deploy.md); in mode ``live`` nothing starts by itself.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch and launch_ros come with ROS 2, not from PyPI.

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "deployment": ("", "preset or YAML file of the cell"),
    "mode": ("", "dry_run, shadow, tracker or live; empty takes the deployment's"),
    "checkpoint": ("", "checkpoint or run directory; empty takes the deployment's"),
    "autostart": ("false", "configure and activate by itself; refused in mode live"),
    "realtime_priority": ("0", "SCHED_FIFO priority of the command thread"),
}
TYPES = {"autostart": bool, "realtime_priority": int}


def generate_launch_description() -> LaunchDescription:
    """One policy node; when it ends, everything ends, and nothing is started again."""
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=about)
        for name, (value, about) in ARGUMENTS.items()
    ]
    node = LifecycleNode(
        package="robot_deploy",
        executable="policy_node",
        name="policy",
        namespace="",
        output="screen",
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=TYPES.get(name, str))
                for name in ARGUMENTS
            }
        ],
        on_exit=Shutdown(reason="the policy node ended"),
    )
    return LaunchDescription([*arguments, node])
