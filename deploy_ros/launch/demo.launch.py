"""A simulated arm and a policy on one laptop: ``ros2 launch robot_deploy demo.launch.py checkpoint:=X``.

Choose a ROS domain without a robot in it (``ROS_DOMAIN_ID=42 ros2 launch ...``): the mode is ``live``. The policy
node is configured and then activated by events, so that the order is certain.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# launch and launch_ros come with ROS 2, not from PyPI.

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler, Shutdown
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition


def generate_launch_description() -> LaunchDescription:
    """Arm and policy; configure at once, activate when that has succeeded."""
    arm = Node(
        package="robot_deploy",
        executable="fake_arm_node",
        name="fake_arm",
        output="screen",
        parameters=[{"seed": ParameterValue(LaunchConfiguration("seed"), value_type=int)}],
        on_exit=Shutdown(reason="the simulated arm ended"),
    )
    policy = LifecycleNode(
        package="robot_deploy",
        executable="policy_node",
        name="policy",
        namespace="",
        output="screen",
        parameters=[{"deployment": "demo", "checkpoint": LaunchConfiguration("checkpoint")}],
        on_exit=Shutdown(reason="the policy node ended"),
    )
    configure = EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(policy), transition_id=Transition.TRANSITION_CONFIGURE
        )
    )
    activate = EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(policy), transition_id=Transition.TRANSITION_ACTIVATE
        )
    )
    when_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=policy,
            start_state="configuring",
            goal_state="inactive",
            entities=[activate],
        )
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("checkpoint", description="a policy for the task lift_joint"),
            DeclareLaunchArgument("seed", default_value="100000", description="where cube and arm start"),
            arm,
            policy,
            when_configured,
            configure,
        ]
    )
