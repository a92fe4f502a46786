"""Rotations of single bodies, quaternions wxyz, by MuJoCo's own functions: a microsecond each, not a hundred."""

from __future__ import annotations

import math

import numpy as np

from robot_sim.engine import mujoco


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation vector (3,) [rad], world frame, that turns quaternion `start` into `end`."""
    back, difference, vector = np.empty(4), np.empty(4), np.empty(3)
    mujoco.mju_negQuat(back, start)
    mujoco.mju_mulQuat(difference, end, back)
    mujoco.mju_quat2Vel(vector, difference, 1.0)
    return vector


def turned(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return a quaternion after a turn by a rotation vector (3,) [rad], world frame."""
    angle = math.sqrt(float(vector @ vector))
    if angle < 1e-12:
        return quaternion.copy()
    turn, result = np.empty(4), np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, vector / angle, angle)
    mujoco.mju_mulQuat(result, turn, quaternion)
    return result / math.sqrt(float(result @ result))


def rotated(vector: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Return a vector (3,) of the body's frame in the world frame."""
    result = np.empty(3)
    mujoco.mju_rotVecQuat(result, vector, quaternion)
    return result


def unrotated(vector: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Return a vector (3,) of the world frame in the body's frame."""
    back = np.empty(4)
    mujoco.mju_negQuat(back, quaternion)
    return rotated(vector, back)


def length(vector: np.ndarray) -> float:
    """Return the Euclidean length of a vector (n,)."""
    return math.sqrt(float(vector @ vector))
