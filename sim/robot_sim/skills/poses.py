"""Orientations of a tool: z along the fingers, x from finger to finger."""

from __future__ import annotations

import math

import numpy as np


def up(height: float) -> np.ndarray:
    """Return the vector (3,) that points up by `height` [m]."""
    return np.array([0.0, 0.0, height])


def pointing_down(finger_angle: float) -> np.ndarray:
    """Return the orientation (3, 3) with fingers pointing down and spread along `finger_angle` about z [rad]."""
    c, s = math.cos(finger_angle), math.sin(finger_angle)
    return np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])


def yaw_of(rotation: np.ndarray) -> float:
    """Return the angle about z of a matrix's x axis [rad]."""
    return math.atan2(rotation[1, 0], rotation[0, 0])


def nearest_turn(angle: float, reference: float, period: float) -> float:
    """Return `angle` plus a whole number of periods [rad], as close to `reference` as can be."""
    return angle + period * round((reference - angle) / period)


def rotated(rotation: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    """Return `rotation` (3, 3) turned by `angle` [rad] about a world axis (3,)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return (np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew) @ rotation


def righted(rotation: np.ndarray) -> np.ndarray:
    """Return the smallest turn (3, 3), in the world, after which the z axis of `rotation` is vertical."""
    axis = rotation[:, 2] * (1.0 if rotation[2, 2] >= 0 else -1.0)
    about = np.array([axis[1], -axis[0], 0.0])  # axis x up
    sine = float(np.linalg.norm(about))
    return np.eye(3) if sine < 1e-9 else rotated(np.eye(3), about, math.atan2(sine, float(axis[2])))
