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
_STUCK_STEPS = 10
_STUCK_JOINTS = 0.02
"""A pose that repeats itself for so many steps while some joint goes so far [rad] is stuck."""


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
    start, end = _longest_run((np.diff(pose, axis=0) == 0).all(axis=1))
    if end - start >= _STUCK_STEPS and np.ptp(joints[start : end + 1], axis=0).max() > _STUCK_JOINTS:
        return f"stands still from step {start} to {end} while joints move"
    return ""


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Return the start and the exclusive end of the longest stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return int(edges[2 * longest]), int(edges[2 * longest + 1])


def frozen_joints(joints: np.ndarray) -> bool:
    """Whether no joint of (T, n) leaves the range that RoboMIND calls frozen."""
    return len(joints) > 1 and bool(np.ptp(joints, axis=0).max() < _STILL)
