"""Faults that RoboMIND's recordings are known to have and that a converted episode is warned about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_datasets.features import STATE, Feature

END_EFFECTOR = "observation.end_effector"

_STILL = 1e-3
"""RoboMIND's own test: a signal whose every component stays within this range [m, rad] is frozen."""
_MOVING = 5e-3
"""Range of some joint beyond which the arm has moved [rad]."""
_STEP = 1e-4
"""Change of some joint from one step to the next beyond which the arm moves [rad]."""
_STUCK_SHARE = 0.5


@dataclass(frozen=True)
class ArmColumns:
    """The columns of one arm: its joints in the state, its pose in the end effector (empty if there is none)."""

    name: str
    joints: tuple[int, ...]
    pose: tuple[int, ...]


def arms_of(features: Mapping[str, Feature]) -> list[ArmColumns]:
    """Find the arms by the names of the components: ``joint1``, or ``left_joint1`` and ``right_joint1``."""
    state, pose = features[STATE].names, features[END_EFFECTOR].names if END_EFFECTOR in features else ()
    arms = []
    for side in ("", "left", "right"):
        prefix = side and f"{side}_"
        joints = tuple(i for i, name in enumerate(state) if name.startswith(f"{prefix}joint"))
        columns = tuple(
            i for i, name in enumerate(pose) if name.startswith(prefix) and not name.endswith("gripper")
        )
        if joints:
            arms.append(ArmColumns(side, joints, columns))
    return arms


def frozen_pose(joints: np.ndarray, pose: np.ndarray) -> str:
    """Say how the end effector is stuck while the joints move; empty if it is not.

    Args:
        joints: (T, n) [rad].
        pose: (T, m) [m, rad or quaternion].
    """
    if len(joints) < 2 or not pose.shape[1] or np.ptp(joints, axis=0).max() <= _MOVING:
        return ""
    if np.ptp(pose, axis=0).max() < _STILL:
        return f"does not move while joints move by up to {np.ptp(joints, axis=0).max():.2f} rad"
    moving = np.abs(np.diff(joints, axis=0)).max(axis=1) > _STEP
    stuck = moving & (np.diff(pose, axis=0) == 0).all(axis=1)
    if moving.any() and stuck.sum() > _STUCK_SHARE * moving.sum():
        return f"stands still in {stuck.sum()} of the {moving.sum()} steps in which joints move"
    return ""


def frozen_joints(joints: np.ndarray) -> bool:
    """Whether no joint of (T, n) leaves the range that RoboMIND calls frozen."""
    return len(joints) > 1 and bool(np.ptp(joints, axis=0).max() < _STILL)
