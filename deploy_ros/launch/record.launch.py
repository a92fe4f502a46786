"""Record what a deployment reads and commands: ``ros2 launch robot_deploy record.launch.py deployment:=my_cell.yaml``.

Beside ``policy.launch.py`` or alone, for teleoperated demonstrations. Episodes are marked by the services
``/recorder/episode_start``, ``_success``, ``_failure`` and ``_discard``; Ctrl-C closes the bag.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch and launch_ros come with ROS 2, not from PyPI.

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "deployment": ("", "preset or YAML file of the cell"),
    "checkpoint": ("", "checkpoint or run directory of the policy that acts; empty takes the deployment's"),
    "folder": ("recordings", "where bags are put, each in a folder named after the time"),
    "compression": ("none", "of chunks: none, lz4 or zstd"),
}


def generate_launch_description() -> LaunchDescription:
    """One recorder; it begins to record at once."""
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=about)
        for name, (value, about) in ARGUMENTS.items()
    ]
    node = Node(
        package="robot_deploy",
        executable="recorder_node",
        name="recorder",
        output="screen",
        parameters=[{name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in ARGUMENTS}],
        on_exit=Shutdown(reason="the recording has ended"),
    )
    return LaunchDescription([*arguments, node])
