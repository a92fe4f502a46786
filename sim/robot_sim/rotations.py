"""Rotations of whole batches, as quaternions wxyz (MuJoCo's order), matrices and rotation vectors.

Every function works on arrays (..., 4), (..., 3, 3) or (..., 3) and treats each entry by itself, so a result does
not depend on the size of the batch.
"""

from __future__ import annotations

import numpy as np

_SMALL = 1e-12


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross products of (..., 3) arrays, broadcast; several times faster than ``np.cross`` here."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    x = ay * bz - az * by
    result = np.empty((*x.shape, 3))
    result[..., 0], result[..., 1], result[..., 2] = x, az * bx - ax * bz, ax * by - ay * bx
    return result


def wxyz_to_xyzw(quaternion: np.ndarray) -> np.ndarray:
    """Reorder (..., 4) from MuJoCo's to SciPy's, ROS's and our datasets' order."""
    return quaternion[..., [1, 2, 3, 0]]


def xyzw_to_wxyz(quaternion: np.ndarray) -> np.ndarray:
    """Reorder (..., 4) to MuJoCo's order."""
    return quaternion[..., [3, 0, 1, 2]]


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return wxyz (..., 4) with w >= 0 of rotation matrices (..., 3, 3)."""
    m = matrix
    # The four squared components, times four; the largest is safe to divide by (Shepperd 1978).
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    squares = np.stack([1 + trace, *(1 - trace + 2 * m[..., i, i] for i in range(3))], axis=-1)
    x, y, z = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = np.stack(
        [
            np.stack([squares[..., 0], x, y, z], axis=-1),
            np.stack([x, squares[..., 1], xy, xz], axis=-1),
            np.stack([y, xy, squares[..., 2], yz], axis=-1),
            np.stack([z, xz, yz, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    best = np.argmax(squares, axis=-1)[..., None, None]
    quaternion = np.take_along_axis(rows, best, axis=-2)[..., 0, :]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Return (..., 3, 3) of unit quaternions wxyz (..., 4)."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_vector_to_matrix(vector: np.ndarray) -> np.ndarray:
    """Return (..., 3, 3) of rotation vectors (..., 3) [rad]."""
    return quaternion_to_matrix(rotation_vector_to_quaternion(vector))


def rotation_vector_to_quaternion(vector: np.ndarray) -> np.ndarray:
    """Return wxyz (..., 4) of rotation vectors (..., 3) [rad]."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    scale = np.where(angle > _SMALL, np.sin(angle / 2) / np.maximum(angle, _SMALL), 0.5)
    return np.concatenate([np.cos(angle / 2), scale * vector], axis=-1)


def matrix_to_rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Return rotation vectors (..., 3) of length at most pi [rad] of rotation matrices (..., 3, 3)."""
    quaternion = matrix_to_quaternion(matrix)
    axis, w = quaternion[..., 1:], quaternion[..., :1]
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    scale = np.where(sine > _SMALL, 2 * np.arctan2(sine, w) / np.maximum(sine, _SMALL), 2.0)
    return scale * axis


def yaw_to_quaternion(yaw: np.ndarray | float) -> np.ndarray:
    """Return wxyz (..., 4) of turns (...) about z [rad]."""
    yaw = np.asarray(yaw, dtype=float)
    zero = np.zeros_like(yaw)
    return np.stack([np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=-1)
