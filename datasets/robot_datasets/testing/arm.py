"""A synthetic arm whose poses are known: smooth joints, and the tool's pose by forward kinematics.

Every generator of a foreign format writes the same trajectory in that format's convention; a test reads it back
and compares poses, so a wrong order of quaternion components or Euler angles cannot hide::

    truth = arm_trajectory(40, seed=1)
    write_my_format(folder, truth.position, truth.quaternions("wxyz"), ...)
    ...
    truth.assert_same_poses(column[:, :3], Rotation.from_quat(column[:, 3:]))
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from robot_datasets.kinematics import PANDA, SerialArm

TOOL = ((0.0, 0.0, 0.1034), (0.1, -0.2, -0.7853981633974483))
"""Default tool on the flange: offset [m], rotation vector [rad]; no symmetry, so that nothing cancels."""

_SWING = 0.9  # amplitude of each joint [rad]
_PERIOD = 45.0  # steps of the slowest joint's swing


@dataclass(frozen=True)
class ArmTrajectory:
    """T steps of a moving arm.

    Attributes:
        arm: Which arm.
        joints: (T, n) angles [rad].
        gripper: (T,) from 0 to 1, closing once and opening again.
        position: (T, 3) of the tool in the arm's base frame [m].
        rotation: T rotations of the tool in the arm's base frame.
    """

    arm: SerialArm
    joints: np.ndarray
    gripper: np.ndarray
    position: np.ndarray
    rotation: Rotation = field(compare=False)

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def poses(self) -> np.ndarray:
        """(T, 4, 4) homogeneous matrices."""
        poses = np.tile(np.eye(4), (len(self), 1, 1))
        poses[:, :3, :3] = self.rotation.as_matrix()
        poses[:, :3, 3] = self.position
        return poses

    def at(self, rows: np.ndarray) -> ArmTrajectory:
        """Return the trajectory at some of its steps, (K,) indices."""
        turns = Rotation.from_quat(self.rotation.as_quat()[rows])
        return ArmTrajectory(self.arm, self.joints[rows], self.gripper[rows], self.position[rows], turns)

    def quaternions(self, order: str) -> np.ndarray:
        """Return (T, 4) unit quaternions in the order ``"xyzw"`` or ``"wxyz"``; signs alternate, as in the wild."""
        xyzw = self.rotation.as_quat() * np.where(np.arange(len(self)) % 3 == 2, -1.0, 1.0)[:, None]
        return {"xyzw": xyzw, "wxyz": np.roll(xyzw, 1, axis=1)}[order]

    def rpy(self) -> np.ndarray:
        """Return (T, 3) roll, pitch, yaw [rad] about the fixed axes x, y, z (extrinsic)."""
        return self.rotation.as_euler("xyz")

    def rotation_6d(self) -> np.ndarray:
        """Return (T, 6): the first two columns of the rotation matrices, one after the other."""
        return self.rotation.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)

    def assert_same_poses(self, position: np.ndarray, rotation: Rotation, *, atol: float = 1e-5) -> None:
        """Raise `AssertionError` unless these are the first poses of the trajectory, within `atol` [m, rad]."""
        assert 0 < len(position) <= len(self)
        distance = np.linalg.norm(position - self.position[: len(position)], axis=1)
        angle = (self.rotation[: len(position)].inv() * rotation).magnitude()
        assert distance.max() <= atol, f"positions are up to {distance.max():.3g} m off"
        assert angle.max() <= atol, f"rotations are up to {angle.max():.3g} rad off"


def arm_trajectory(
    n_steps: int,
    *,
    seed: int = 0,
    arm: SerialArm = PANDA,
    tool: tuple[tuple[float, float, float], tuple[float, float, float]] = TOOL,
) -> ArmTrajectory:
    """Return a smooth, seeded motion of all joints about a bent posture; the tool turns about all axes.

    Args:
        n_steps: T.
        seed: Equal seeds give equal trajectories.
        arm: The arm.
        tool: Tool on the flange: offset [m] and rotation vector [rad].
    """
    random = np.random.default_rng((seed, len(arm.links)))
    count = len(arm.links)
    centre = random.uniform(-0.8, 0.8, count)
    phase, speed = random.uniform(0, 2 * np.pi, count), random.uniform(1.0, 2.0, count)
    time = 2 * np.pi * np.arange(n_steps)[:, None] / _PERIOD
    joints = centre + _SWING * np.sin(phase + speed * time)
    offset = np.eye(4)
    offset[:3, 3], offset[:3, :3] = tool[0], Rotation.from_rotvec(tool[1]).as_matrix()
    poses = arm.flange_poses(joints) @ offset
    gripper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_steps) / max(1, n_steps - 1))
    return ArmTrajectory(arm, joints, gripper, poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3]))
