r"""PushT in the mirror: the task is symmetric about the line x + y = 512 px.

The block is symmetric about its own y axis, which points along that line when it lies on the target (256, 256,
pi/4), and the window is a square. So the reflection

    (x, y)  ->  (512 - y, 512 - x)        block angle a  ->  pi/2 - a

takes a demonstration to one that is as good. Only the walls are a pixel off (they lie at 5 and 506).
"""

from __future__ import annotations

import math

import numpy as np

from robot_datasets.features import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE
from robot_sim.replay import FULL_STATE
from robot_sim.tasks.pusht import BLOCK_KEYPOINTS

SIZE = 512.0
"""Side of the window [px]."""

CONTACTS = "observation.n_contacts"
"""How many contacts the published recordings count at each step; a reflection leaves them as they are."""

FEATURES = (STATE, ENVIRONMENT_STATE, FULL_STATE, ACTION, CONTACTS, IMAGE_PREFIX + "top")
"""What can be mirrored."""

_CENTRE = BLOCK_KEYPOINTS.mean(axis=0)
_ARMS = BLOCK_KEYPOINTS - _CENTRE


def mirror_values(name: str, values: np.ndarray) -> np.ndarray:
    """Mirror a low-dimensional feature (T, D) of the published demonstrations; float32."""
    values = np.asarray(values, dtype=np.float64)
    if name == CONTACTS:
        return values.astype(np.float32)
    if name == ENVIRONMENT_STATE:
        position, angle = block_pose(values.reshape(-1, 9, 2))
        mirrored = place_keypoints(mirror_points(position), math.pi / 2 - angle).reshape(len(values), 18)
    elif name == FULL_STATE:
        points = mirror_points(values[:, :4].reshape(-1, 2, 2)).reshape(-1, 4)
        mirrored = np.column_stack([points, np.mod(math.pi / 2 - values[:, 4], 2 * math.pi)])
    else:
        mirrored = mirror_points(values)
    return mirrored.astype(np.float32)


def mirror_frame(frame: np.ndarray) -> np.ndarray:
    """Mirror a picture (H, W, C) about its other diagonal; (W, H, C)."""
    return np.ascontiguousarray(frame[::-1, ::-1].swapaxes(0, 1))


def mirror_points(points: np.ndarray) -> np.ndarray:
    """Mirror points (..., 2) [px]."""
    return SIZE - points[..., ::-1]


def block_pose(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares pose of blocks with keypoints (T, 9, 2): position (T, 2) [px] and angle (T,) [rad]."""
    centre = keypoints.mean(axis=1)
    seen = keypoints - centre[:, None]
    cross = (_ARMS[:, 0] * seen[..., 1] - _ARMS[:, 1] * seen[..., 0]).sum(axis=1)
    angle = np.arctan2(cross, (_ARMS * seen).sum(axis=(1, 2)))
    return centre - _turn(angle) @ _CENTRE, angle


def place_keypoints(position: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Keypoints (T, 9, 2) [px] of blocks at positions (T, 2) [px], turned by (T,) [rad]."""
    return BLOCK_KEYPOINTS @ _turn(angle).swapaxes(1, 2) + position[:, None]


def _turn(angle: np.ndarray) -> np.ndarray:
    """Rotation matrices (T, 2, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c, -s, s, c], axis=-1).reshape(-1, 2, 2)
