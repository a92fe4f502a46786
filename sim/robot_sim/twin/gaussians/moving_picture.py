r"""How a picture changes when a body moves rigidly, in closed form and compiled: what tracking at camera rate needs.

The picture is that of `robot_sim.twin.gaussians.renderer`, to rounding. With :math:`S^{-1}(p - m) = (u, v)`, a
Gaussian's opacity changes with its projected mean and covariance as

.. math::
    d\alpha = \alpha \left(u\,dm_x + v\,dm_y + \tfrac12 u^2 dS_{xx} + uv\,dS_{xy} + \tfrac12 v^2 dS_{yy}
        + d \ln o'\right),

and a pixel with the opacity as :math:`dI/d\alpha_i = T_i c_i - B_i / (1 - \alpha_i)`, :math:`B_i` being all that is
seen of what lies behind :math:`i`. Both are carried along the few motions that are asked for, Gaussian by Gaussian and
only over the pixels it reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numba
import numpy as np

from robot_sim.twin.gaussians.camera import Pinhole
from robot_sim.twin.gaussians.cloud import GaussianBody
from robot_sim.twin.gaussians.renderer import BLUR, DENSEST, FAINTEST, NEAR, THINNEST

F = TypeVar("F", bound=Callable[..., object])


def _compiled(function: F) -> F:
    return cast(F, numba.njit(cache=True)(function))


@dataclass(frozen=True, eq=False)
class Solid:
    """A body's Gaussians as arrays that the compiled code reads, body frame, float64.

    Attributes:
        means: (N, 3) [m].
        axes: (N, 3, 3) columns are the half axes [m].
        colours: (N, 3).
        opacities: (N,).
    """

    means: np.ndarray
    axes: np.ndarray
    colours: np.ndarray
    opacities: np.ndarray

    @classmethod
    def of_body(cls, body: GaussianBody) -> Solid:
        """Take a body's Gaussians."""
        w, x, y, z = body.quaternions.astype(np.float64).T
        rows = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return cls(
            means=body.means.astype(np.float64),
            axes=np.ascontiguousarray(rows.transpose(2, 0, 1) * body.scales[:, None, :]),
            colours=body.colours.astype(np.float64),
            opacities=body.opacities.astype(np.float64),
        )


@dataclass(frozen=True, eq=False)
class MovingPicture:
    """A picture and its derivative.

    Attributes:
        image: (H, W, 3).
        alpha: (H, W) how much of the background is hidden.
        jacobian: (H, W, 3, K), per metre and per radian.
    """

    image: np.ndarray
    alpha: np.ndarray
    jacobian: np.ndarray


def draw_moving(
    solid: Solid,
    rotation: np.ndarray,
    position: np.ndarray,
    twists: np.ndarray,
    camera: Pinhole,
    background: np.ndarray,
) -> MovingPicture:
    """Draw a body, with the derivative along some rigid motions of it.

    Args:
        solid: The body.
        rotation: (3, 3) from body axes to world axes.
        position: (3,) of the body frame, which rotations are about [m].
        twists: (K, 6) motions: velocity of the body frame [m], rotation vector [rad], world axes; K may be 0.
        camera: The camera.
        background: (H, W, 3) floats in [0, 1], what is behind the body.
    """
    to_camera = camera.rotation @ rotation
    offset = camera.rotation @ position + camera.translation
    turned = np.ascontiguousarray(
        twists.reshape(-1, 2, 3) @ camera.rotation.T
    )  # linear and angular, camera axes
    means, axes = solid.means @ to_camera.T, to_camera @ solid.axes
    intrinsics = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    centres, covariances, seen, change = _project(means, offset, axes, turned, intrinsics, solid.opacities)
    depths = means[:, 2] + offset[2]
    order = np.argsort(depths, kind="stable")
    order = order[(depths[order] > NEAR) & (seen[order] >= FAINTEST)]
    behind = np.ascontiguousarray(background, dtype=np.float64)
    image, left_over = _image(order, centres, covariances, solid.colours, seen, behind)
    if len(twists):
        jacobian = _slopes(order, centres, covariances, change, solid.colours, seen, image)
    else:
        jacobian = np.zeros((*image.shape, 0))
    return MovingPicture(image, 1.0 - left_over, jacobian)


@_compiled
def _cross(a: np.ndarray, x: float, y: float, z: float) -> tuple[float, float, float]:
    return a[1] * z - a[2] * y, a[2] * x - a[0] * z, a[0] * y - a[1] * x


@_compiled
def _project(
    arms: np.ndarray, offset: np.ndarray, axes: np.ndarray, twists: np.ndarray, intrinsics: np.ndarray,
    opacities: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Projected means (N, 2), covariances (N, 3), opacities (N,) and changes (N, 6, K); inputs in camera axes."""
    n, k = len(arms), len(twists)
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    centres, covariances, change = np.empty((n, 2)), np.zeros((n, 3)), np.zeros((n, 6, k))
    seen = np.empty(n)
    for i in range(n):
        z = max(arms[i, 2] + offset[2], NEAR)
        rx, ry = (arms[i, 0] + offset[0]) / z, (arms[i, 1] + offset[1]) / z
        centres[i, 0], centres[i, 1] = fx * rx + cx, fy * ry + cy
        for a in range(3):
            across = fx / z * (axes[i, 0, a] - rx * axes[i, 2, a])
            down = fy / z * (axes[i, 1, a] - ry * axes[i, 2, a])
            covariances[i, 0] += across * across
            covariances[i, 1] += across * down
            covariances[i, 2] += down * down
            for j in range(k):
                dx, dy, dz = _cross(twists[j, 1], arms[i, 0], arms[i, 1], arms[i, 2])
                dx, dy, dz = dx + twists[j, 0, 0], dy + twists[j, 0, 1], dz + twists[j, 0, 2]
                drx, dry = (dx - rx * dz) / z, (dy - ry * dz) / z
                tx, ty, tz = _cross(twists[j, 1], axes[i, 0, a], axes[i, 1, a], axes[i, 2, a])
                dacross = fx / z * (tx - rx * tz - drx * axes[i, 2, a]) - dz / z * across
                ddown = fy / z * (ty - ry * tz - dry * axes[i, 2, a]) - dz / z * down
                change[i, 0, j], change[i, 1, j] = fx * drx, fy * dry
                change[i, 2, j] += 2.0 * across * dacross
                change[i, 3, j] += across * ddown + dacross * down
                change[i, 4, j] += 2.0 * down * ddown
        xx, xy, yy = covariances[i, 0], covariances[i, 1], covariances[i, 2]
        bare, blurred = xx * yy - xy * xy, (xx + BLUR) * (yy + BLUR) - xy * xy
        share = bare / blurred
        seen[i] = opacities[i] * math.sqrt(max(share, THINNEST))
        covariances[i, 0], covariances[i, 2] = xx + BLUR, yy + BLUR
        if share > THINNEST:
            for j in range(k):
                dxx, dxy, dyy = change[i, 2, j], change[i, 3, j], change[i, 4, j]
                thinner = (yy * dxx - 2.0 * xy * dxy + xx * dyy) / bare
                wider = ((yy + BLUR) * dxx - 2.0 * xy * dxy + (xx + BLUR) * dyy) / blurred
                change[i, 5, j] = 0.5 * (thinner - wider)
    return centres, covariances, seen, change


@_compiled
def _box(
    centre: np.ndarray, covariance: np.ndarray, opacity: Any, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """First and last row and column that a Gaussian may reach."""
    spread = 2.0 * math.log(opacity / FAINTEST)
    half_x, half_y = math.sqrt(spread * covariance[0]), math.sqrt(spread * covariance[2])
    return (
        max(0, math.ceil(centre[1] - half_y - 0.5)),
        min(size[0] - 1, math.floor(centre[1] + half_y - 0.5)),
        max(0, math.ceil(centre[0] - half_x - 0.5)),
        min(size[1] - 1, math.floor(centre[0] + half_x - 0.5)),
    )


@_compiled
def _at(
    row: int, column: int, centre: np.ndarray, covariance: np.ndarray, opacity: Any
) -> tuple[float, float, float]:
    """Opacity at a pixel, and S^-1 (p - m)."""
    xx, xy, yy = covariance
    dx, dy = column + 0.5 - centre[0], row + 0.5 - centre[1]
    determinant = xx * yy - xy * xy
    u, v = (yy * dx - xy * dy) / determinant, (xx * dy - xy * dx) / determinant
    return opacity * math.exp(-0.5 * (dx * u + dy * v)), u, v


@_compiled
def _image(
    order: np.ndarray, centres: np.ndarray, covariances: np.ndarray, colours: np.ndarray, opacities: np.ndarray,
    background: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Image (H, W, 3) and transmittance (H, W)."""
    height, width = background.shape[:2]
    image, left_over = np.zeros((height, width, 3)), np.ones((height, width))
    for i in order:
        top, bottom, left, right = _box(centres[i], covariances[i], opacities[i], (height, width))
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                alpha = _at(row, column, centres[i], covariances[i], opacities[i])[0]
                if alpha >= FAINTEST:
                    alpha = min(alpha, DENSEST)
                    for c in range(3):
                        image[row, column, c] += alpha * left_over[row, column] * colours[i, c]
                    left_over[row, column] *= 1.0 - alpha
    for row in range(height):
        for column in range(width):
            for c in range(3):
                image[row, column, c] += left_over[row, column] * background[row, column, c]
    return image, left_over


@_compiled
def _slopes(
    order: np.ndarray, centres: np.ndarray, covariances: np.ndarray, change: np.ndarray, colours: np.ndarray,
    opacities: np.ndarray, image: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Jacobian (H, W, 3, K) of a finished image."""
    height, width = image.shape[:2]
    k = change.shape[2]
    jacobian, left_over = np.zeros((height, width, 3, k)), np.ones((height, width))
    shown = np.zeros((height, width, 3))
    for i in order:
        top, bottom, left, right = _box(centres[i], covariances[i], opacities[i], (height, width))
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                alpha, u, v = _at(row, column, centres[i], covariances[i], opacities[i])
                if alpha < FAINTEST:
                    continue
                moving = alpha if alpha < DENSEST else 0.0
                alpha, before = min(alpha, DENSEST), left_over[row, column]
                left_over[row, column] = before * (1.0 - alpha)
                for c in range(3):
                    shown[row, column, c] += alpha * before * colours[i, c]
                for j in range(k):
                    step = moving * (
                        u * change[i, 0, j] + v * change[i, 1, j] + 0.5 * u * u * change[i, 2, j]
                        + u * v * change[i, 3, j] + 0.5 * v * v * change[i, 4, j] + change[i, 5, j]
                    )  # fmt: skip
                    for c in range(3):
                        behind = image[row, column, c] - shown[row, column, c]
                        jacobian[row, column, c, j] += step * (
                            before * colours[i, c] - behind / (1.0 - alpha)
                        )
    return jacobian


@_compiled
def normal_equations(
    observed: np.ndarray,
    image: np.ndarray,
    alpha: np.ndarray,
    jacobian: np.ndarray,
    valid: np.ndarray,
    huber: float,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Sum a Huber loss over a picture's valid pixels.

    Args:
        observed: (H, W, 3).
        image: (H, W, 3) as drawn.
        alpha: (H, W) as drawn.
        jacobian: (H, W, 3, K) of the image.
        valid: (H, W) bool.
        huber: Residual from which on the loss grows linearly.

    Returns:
        Loss, curvature (K, K), descent (K,); sums of opacity, valid opacity, weighted squares and weights on the body.
    """
    height, width, _, k = jacobian.shape
    loss, curvature, descent, sums = 0.0, np.zeros((k, k)), np.zeros(k), np.zeros(4)
    for row in range(height):
        for column in range(width):
            here = alpha[row, column]
            sums[0] += here
            if not valid[row, column]:
                continue
            sums[1] += here
            for c in range(3):
                residual = observed[row, column, c] - image[row, column, c]
                size = abs(residual)
                weight = 1.0 if size <= huber else huber / size
                loss += 0.5 * size * size if size <= huber else huber * (size - 0.5 * huber)
                sums[2] += here * weight * size * size
                sums[3] += here * weight
                for j in range(k):
                    slope = weight * jacobian[row, column, c, j]
                    descent[j] += slope * residual
                    for m in range(j + 1):
                        curvature[j, m] += slope * jacobian[row, column, c, m]
    for j in range(k):
        for m in range(j):
            curvature[m, j] = curvature[j, m]
    return loss, curvature, descent, sums
