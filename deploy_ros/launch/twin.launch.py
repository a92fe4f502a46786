"""A twin, and an arm that follows it: ``ros2 launch robot_deploy twin.launch.py cell:=X checkpoint:=Y deployment:=Z``.

Without a checkpoint the twin only mirrors its cell. With one, tracker and policy node (mode ``tracker``) come, too:
configure and activate the policy node, then call ``/twin/start`` (docs/twin.md). On a laptop, in a ROS domain of your
own, ``cell:=tabletop_push_t surrogate:=true`` brings a simulated cell.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch and launch_ros come with ROS 2, not from PyPI.

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

ARGUMENTS = {
    "cell": ("", "a cell that comes along, or a YAML file"),
    "checkpoint": (
        "",
        "checkpoint or run directory of the policy that leads; empty for a twin that only mirrors",
    ),
    "joint_states": ("/joint_states", "topic of the measured joint states"),
    "object_topic": ("/objects/{object}/pose", "topics of the objects' poses"),
    "frame": ("world", "frame_id of the objects' poses"),
    "deployment": ("twin", "preset or YAML file of the arm that follows"),
    "hold_above": ("0.1", "distance between twin and arm at which the twin waits [rad or m]"),
    "go_below": ("0.03", "distance at which it goes on [rad or m]"),
    "autostart": (
        "false",
        "configure and activate the policy node by itself; /twin/start is yours in any case",
    ),
    "realtime_priority": ("0", "SCHED_FIFO priority of the policy node's command thread"),
    "surrogate": ("false", "start a simulated cell, too"),
    "seed": ("0", "episode of the simulated cell"),
}
GIVEN_TO = {
    "twin_node": ("cell", "checkpoint", "joint_states", "object_topic", "frame"),
    "tracker_node": ("deployment", "hold_above", "go_below"),
    "policy_node": ("deployment", "autostart", "realtime_priority"),
    "surrogate_cell_node": ("cell", "frame", "seed"),
}
TYPES = {"hold_above": float, "go_below": float, "autostart": bool, "realtime_priority": int, "seed": int}


def generate_launch_description() -> LaunchDescription:
    """Twin, tracker and policy node; when one ends, everything ends, and nothing is started again."""
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=about)
        for name, (value, about) in ARGUMENTS.items()
    ]
    given = {
        node: {n: ParameterValue(LaunchConfiguration(n), value_type=TYPES.get(n, str)) for n in names}
        for node, names in GIVEN_TO.items()
    }
    follows = IfCondition(NotEqualsSubstitution(LaunchConfiguration("checkpoint"), ""))
    twin = Node(
        package="robot_deploy",
        executable="twin_node",
        name="twin",
        output="screen",
        parameters=[given["twin_node"]],
        on_exit=Shutdown(reason="the twin ended"),
    )
    tracker = Node(
        package="robot_deploy",
        executable="tracker_node",
        name="tracker",
        output="screen",
        parameters=[given["tracker_node"]],
        condition=follows,
        on_exit=Shutdown(reason="the tracker ended"),
    )
    policy = LifecycleNode(
        package="robot_deploy",
        executable="policy_node",
        name="policy",
        namespace="",
        output="screen",
        parameters=[{**given["policy_node"], "mode": "tracker"}],
        condition=follows,
        on_exit=Shutdown(reason="the policy node ended"),
    )
    surrogate = Node(
        package="robot_deploy",
        executable="surrogate_cell_node",
        name="surrogate",
        output="screen",
        parameters=[given["surrogate_cell_node"]],
        condition=IfCondition(LaunchConfiguration("surrogate")),
        on_exit=Shutdown(reason="the simulated cell ended"),
    )
    return LaunchDescription([*arguments, surrogate, twin, tracker, policy])
