"""The T-shaped block of PushT and its target, in metres; the public benchmark's geometry with 1 px = 1 mm.

Block frame: origin in the middle of the bar's outer edge, as in the benchmark; the stem points along +y. The bar is
120 x 30 mm, the stem 30 x 90 mm.
"""

from __future__ import annotations

import numpy as np

#: The two boxes: middle x, y and half sizes [m].
BAR = (0.0, 0.015, 0.06, 0.015)
STEM = (0.0, 0.075, 0.015, 0.045)
#: Centre of mass: of two plates of the same thickness and density, areas 36 and 27 square centimetres.
CENTRE = np.array([0.0, (36 * BAR[1] + 27 * STEM[1]) / 63])
#: Corners in order, counter-clockwise, block frame [m].
OUTLINE = 0.001 * np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], dtype=float
)
GRID = 0.002  # distance of the points that coverage is counted on [m]
TARGET_YAW = np.pi / 4
SUCCESS_COVERAGE = 0.95


def inside(points: np.ndarray) -> np.ndarray:
    """Return whether points (..., 2) in the block's frame lie in the block."""
    x, y = points[..., 0], points[..., 1]
    boxes = [(np.abs(x - box[0]) <= box[2]) & (np.abs(y - box[1]) <= box[3]) for box in (BAR, STEM)]
    return boxes[0] | boxes[1]


def _grid() -> np.ndarray:
    x, y = np.meshgrid(np.arange(-0.06 + GRID / 2, 0.06, GRID), np.arange(GRID / 2, 0.12, GRID))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points[inside(points)]


POINTS = _grid()


def turned(points: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Return points (P, 2) turned by angles (N,), as (N, P, 2)."""
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    return np.stack([c * points[:, 0] - s * points[:, 1], s * points[:, 0] + c * points[:, 1]], axis=-1)


def coverage(
    place: np.ndarray, yaw: np.ndarray, target_place: np.ndarray, target_yaw: np.ndarray
) -> np.ndarray:
    """Return the share of the target that the block covers, (N,), counted on a grid of 2 mm.

    Args:
        place: Origins of the blocks (N, 2) [m].
        yaw: Their angles (N,) [rad].
        target_place: Origins of the targets (N, 2) [m].
        target_yaw: Their angles (N,) [rad].
    """
    in_world = turned(POINTS, target_yaw) + target_place[:, None] - place[:, None]
    c, s = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x = c * in_world[..., 0] + s * in_world[..., 1]
    y = -s * in_world[..., 0] + c * in_world[..., 1]
    return inside(np.stack([x, y], axis=-1)).mean(axis=1)
