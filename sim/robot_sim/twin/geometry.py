"""Rotations of single bodies: differences, products and small turns of quaternions wxyz."""

from __future__ import annotations

import numpy as np

from robot_sim.rotations import matrix_to_rotation_vector, quaternion_to_matrix, rotation_vector_to_quaternion


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the rotation vector (3,) [rad], world frame, that turns quaternion `start` into `end` (wxyz)."""
    matrices = quaternion_to_matrix(np.stack([start, end]))
    return matrix_to_rotation_vector(matrices[1] @ matrices[0].T)


def turned(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return a quaternion after a turn by a rotation vector (3,) [rad], world frame."""
    return multiplied(rotation_vector_to_quaternion(vector), quaternion)


def multiplied(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the product of two quaternions wxyz: the rotation `second`, then `first`."""
    w1, x1, y1, z1 = first
    w2, x2, y2, z2 = second
    product = np.array(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ]
    )
    return product / np.linalg.norm(product)
