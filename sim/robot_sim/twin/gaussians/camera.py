"""Pinhole cameras as the cell file describes them: OpenCV axes, and pixel (i, j) centred at (j + 0.5, i + 0.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.scene import look_at
from robot_sim.twin.cell import CameraCell


@dataclass(frozen=True, kw_only=True, eq=False)
class Pinhole:
    """Intrinsics in pixels, and the pose as it is used: from world to camera.

    Attributes:
        width: [px].
        height: [px].
        fx: Focal length [px].
        fy: Focal length [px].
        cx: Principal point [px].
        cy: Principal point [px].
        rotation: (3, 3) from world axes to camera axes.
        translation: (3,) the world's origin, camera frame [m].
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def from_cell(cls, camera: CameraCell) -> Pinhole:
        """Take a camera of a cell file."""
        to_world = np.empty(9)
        mujoco.mju_quat2Mat(to_world, np.asarray(camera.quaternion, dtype=np.float64))
        rotation = to_world.reshape(3, 3).T
        return cls(
            width=camera.width, height=camera.height, fx=camera.fx, fy=camera.fy, cx=camera.cx, cy=camera.cy,
            rotation=rotation, translation=-rotation @ np.asarray(camera.position, dtype=np.float64),
        )  # fmt: skip

    def cropped(self, left: int, top: int, right: int, bottom: int) -> Pinhole:
        """Return the camera of the pixels [top:bottom, left:right]."""
        return replace(self, width=right - left, height=bottom - top, cx=self.cx - left, cy=self.cy - top)

    def reduced(self, factor: int) -> Pinhole:
        """Return the camera of a picture whose blocks of factor by factor pixels are averaged; a rest is cut off."""
        return replace(
            self, width=self.width // factor, height=self.height // factor, fx=self.fx / factor,
            fy=self.fy / factor, cx=self.cx / factor, cy=self.cy / factor,
        )  # fmt: skip

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel coordinates (N, 2) and depths (N,) [m] of world points (N, 3)."""
        seen = points @ self.rotation.T + self.translation
        depth = seen[:, 2]
        return seen[:, :2] / depth[:, None] * [self.fx, self.fy] + [self.cx, self.cy], depth

    def on_plane(self, pixel: np.ndarray, height: float) -> np.ndarray:
        """Return the world point (3,) at this height that a pixel (2,) shows."""
        ray = np.array([(pixel[0] - self.cx) / self.fx, (pixel[1] - self.cy) / self.fy, 1.0]) @ self.rotation
        eye = -self.rotation.T @ self.translation
        return eye + ray * ((height - eye[2]) / ray[2])


def looking_at(
    eye: Sequence[float], target: Sequence[float], *, fov: float, width: int, height: int
) -> CameraCell:
    """Return a camera at `eye` that looks at `target`, with this vertical field of view [degrees]."""
    opengl = look_at(eye, target)
    flipped = np.empty(4)  # OpenGL's axes are x right, y up, z backwards: half a turn about x
    mujoco.mju_mulQuat(flipped, opengl, np.array([0.0, 1.0, 0.0, 0.0]))
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    return CameraCell(
        width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2,
        position=tuple(float(x) for x in eye), quaternion=tuple(float(x) for x in flipped),
    )  # fmt: skip


def reduced_picture(picture: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of factor by factor pixels of (H, W, ...) floats; a rest is cut off."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    blocks = picture[: height * factor, : width * factor]
    return blocks.reshape(height, factor, width, factor, *picture.shape[2:]).mean(axis=(1, 3))
