"""What a robot's own drivers say of an arm: joints, gripper, and the tool in the frame of the arm's base.

Our tasks observe the tool in the world, which is what their experts and most policies need. Recordings of real arms
hold joint angles and a pose in the base instead, so a task that is to look like one observes these beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_datasets.features import Feature
from robot_sim.mujoco_tasks.arms import Mount
from robot_sim.mujoco_tasks.mounted_arm import MountedArm
from robot_sim.rotations import matrix_to_quaternion, wxyz_to_xyzw
from robot_sim.task import Observation
from robot_sim.vector.physics import BatchedPhysics

JOINT_POSITION = "observation.joint_position"
END_EFFECTOR = "observation.end_effector"
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")


def joint_features(arms: Sequence[MountedArm]) -> dict[str, Feature]:
    """Describe what `observe_joints` returns; of several arms one after the other, each in its own base's frame."""
    joints: list[str] = []
    pose: list[str] = []
    units: list[str] = []
    for arm in arms:
        prefix = "" if arm.mount.prefix == "robot_" else arm.mount.prefix
        count = len(arm.mount.joints)
        joints += [*(f"{prefix}joint{i}" for i in range(1, count + 1)), f"{prefix}gripper"]
        units += [*["rad"] * count, "1"]
        pose += [prefix + name for name in _POSE]
    return {
        JOINT_POSITION: Feature(
            dtype="float32",
            shape=(len(joints),),
            names=tuple(joints),
            units=tuple(units),
            gripper="0=closed,1=open",
        ),
        END_EFFECTOR: Feature(
            dtype="float32",
            shape=(len(pose),),
            names=tuple(pose),
            units=("m", "m", "m", "1", "1", "1", "1") * len(arms),
            frame="robot_base",
            rotation="quat_xyzw",
        ),
    }


def observe_joints(arms: Sequence[MountedArm], physics: BatchedPhysics) -> Observation:
    """Return joint angles [rad] with the gripper's opening, (N, J + 1) per arm, and tool poses, (N, 7) per arm."""
    joints = [
        np.concatenate([arm.joint_positions(physics), arm.opening(physics)[:, None]], axis=1) for arm in arms
    ]
    return {
        JOINT_POSITION: np.concatenate(joints, axis=1),
        END_EFFECTOR: np.concatenate([_tool_in_base(arm, physics) for arm in arms], axis=1),
    }


def _tool_in_base(arm: MountedArm, physics: BatchedPhysics) -> np.ndarray:
    base = _base_rotation(arm.mount)
    position = (arm.position(physics) - np.array(arm.mount.position)) @ base
    turn = wxyz_to_xyzw(matrix_to_quaternion(base.T @ arm.rotation(physics)))
    return np.concatenate([position, turn], axis=1)


def _base_rotation(mount: Mount) -> np.ndarray:
    """Return the base's orientation in the world, (3, 3)."""
    c, s = np.cos(mount.yaw), np.sin(mount.yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
