r"""Where a body is, from pictures: its pose is changed until the drawn body looks like the observed one.

Gauss-Newton (Levenberg-Marquardt) on the six numbers of a rigid motion, or the three of one that slides on a table,
over the pixels around the body of all cameras together, with a Huber loss and without the pixels that something else
hides. The curvature at the end is the information the pictures hold, which gives the covariance:

.. math::
    \Sigma = \kappa\,\hat\sigma^2 (J^\top W J)^{-1} + \Sigma_0

:math:`\kappa` makes up for residuals of neighbouring pixels being alike, :math:`\Sigma_0` for calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.twin.gaussians.camera import Pinhole
from robot_sim.twin.gaussians.moving_picture import Solid, draw_moving, normal_equations
from robot_sim.twin.geometry import turned

FREE = np.eye(6)
PLANAR = np.eye(6)[[0, 1, 5]]  # x, y and yaw, world axes
GLOW = 0.7, 1.4  # bounds of how much brighter a body may be seen than it was sampled


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a pose is fitted.

    Attributes:
        iterations: Pictures drawn at most, and so one step fewer.
        margin: Width of the frame around the body that is compared too [px].
        huber: Residual, as a share of full brightness, from which on the loss grows linearly.
        max_move: Longest step [m].
        max_turn: Largest turn of a step [rad].
        enough: A step that moves less than this share of a pixel ends the fit.
        min_visible: Share of the body that must not be hidden for a result.
        min_gain: By how much the body must explain the pictures better than the background does, as a share.
        inflation: The factor kappa of the covariance.
        floor_position: Standard deviation that calibration leaves [m].
        floor_angle: The same for the orientation [rad].
    """

    iterations: int = 4
    margin: int = 4
    huber: float = 0.1
    max_move: float = 0.015
    max_turn: float = 0.25
    enough: float = 0.1
    min_visible: float = 0.25
    min_gain: float = 0.3
    inflation: float = 10.0
    floor_position: float = 0.0005
    floor_angle: float = 0.005

    def __post_init__(self) -> None:
        for name in (
            "iterations",
            "huber",
            "max_move",
            "max_turn",
            "inflation",
            "floor_position",
            "floor_angle",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"fit.{name}: got {getattr(self, name)}, expected above 0")


@dataclass(frozen=True, eq=False)
class View:
    """What one camera saw, and what it would see without the body.

    Attributes:
        camera: The camera.
        observed: (H, W, 3) floats in [0, 1].
        background: (H, W, 3) floats in [0, 1].
        valid: (H, W) bool, False where something else hides the body or nothing is known.
    """

    camera: Pinhole
    observed: np.ndarray
    background: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseFit:
    """A fitted pose.

    Attributes:
        position: (3,) of the body frame [m].
        quaternion: (4,) wxyz.
        covariance: (6, 6) of position [m²] and rotation vector [rad²], world axes.
        residual: Root mean square difference per channel over the compared pixels, as a share of full brightness.
        gain: Share of the difference between picture and background that the body explains; 1 is all of it.
        visible: Share of the drawn body that is not hidden.
        steps: Steps taken.
    """

    position: np.ndarray
    quaternion: np.ndarray
    covariance: np.ndarray
    residual: float
    gain: float
    visible: float
    steps: int


@dataclass(frozen=True, eq=False)
class _Linear:
    cost: float
    curvature: np.ndarray
    slope: np.ndarray
    visible: float
    squares: float
    weight: float


def fit_pose(
    solid: Solid, position: np.ndarray, quaternion: np.ndarray, views: Sequence[View], *, motions: np.ndarray = FREE,
    config: FitConfig | None = None,
) -> PoseFit | None:  # fmt: skip
    """Move a body until it looks as observed.

    Args:
        solid: The body.
        position: (3,) where to start [m]; within about the body's width of the truth.
        quaternion: (4,) wxyz, likewise.
        views: What the cameras saw.
        motions: (K, 6) ways it may move, see `FREE` and `PLANAR`.
        config: How.

    Returns:
        The pose, or None if too little of the body is to be seen, or the pictures look no more like the body than
        like the background: it is somewhere else.
    """
    config = config or FitConfig()
    crops = [crop for view in views if (crop := around(view, solid, position, config.margin)) is not None]
    if not crops:
        return None
    glows = [_glow(solid, position, quaternion, crop) for crop in crops]
    best = _linearised(solid, position, quaternion, crops, glows, motions, config)
    damping, steps = 1e-3, 0
    for _ in range(config.iterations - 1):
        step = _step(best, damping, motions, config)
        if step is None:
            break
        moved = position + step[:3], turned(quaternion, step[3:])
        tried = _linearised(solid, *moved, crops, glows, motions, config)
        if tried.cost > best.cost:
            damping *= 10.0
            continue
        best, damping, steps = tried, damping * 0.2, steps + 1
        position, quaternion = moved
        if _in_pixels(step, solid, position, crops) < config.enough:
            break
    absent = sum(_loss((crop.observed - crop.background)[crop.valid], config.huber) for crop in crops)
    gain = 1.0 - best.cost / absent if absent > 0 else 0.0
    if best.visible < config.min_visible or gain < config.min_gain:
        return None
    noise = best.squares / max(best.weight, 1.0)
    covariance = _covariance(best.curvature, noise, motions, config)
    return PoseFit(
        position=position, quaternion=quaternion, covariance=covariance, residual=float(np.sqrt(noise)),
        gain=float(gain), visible=best.visible, steps=steps,
    )  # fmt: skip


def around(view: View, solid: Solid, position: np.ndarray, margin: int) -> View | None:
    """Return the part of a view around a body, or None if the body is not in it."""
    radius = np.sqrt((solid.means**2).sum(axis=1)).max() + 2.0 * np.sqrt((solid.axes**2).sum(axis=1)).max()
    (centre,), (depth,) = view.camera.project(position[None])
    if depth <= radius:
        return None
    reach = radius * max(view.camera.fx, view.camera.fy) / (depth - radius) + margin
    left, top = (max(0, int(np.floor(x - reach))) for x in centre)
    right = min(view.camera.width, int(np.ceil(centre[0] + reach)))
    bottom = min(view.camera.height, int(np.ceil(centre[1] + reach)))
    if right - left < 2 or bottom - top < 2:
        return None
    part = np.s_[top:bottom, left:right]
    camera = view.camera.cropped(left, top, right, bottom)
    return View(camera, view.observed[part], view.background[part], view.valid[part])


def _linearised(
    solid: Solid, position: np.ndarray, quaternion: np.ndarray, crops: Sequence[View], glows: Sequence[float],
    motions: np.ndarray, config: FitConfig,
) -> _Linear:  # fmt: skip
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    k = len(motions)
    cost, curvature, slope, sums = 0.0, np.zeros((k, k)), np.zeros(k), np.zeros(4)
    for crop, glow in zip(crops, glows, strict=True):
        lit = replace(solid, colours=solid.colours * glow)
        picture = draw_moving(lit, matrix.reshape(3, 3), position, motions, crop.camera, crop.background)
        part = normal_equations(
            crop.observed, picture.image, picture.alpha, picture.jacobian, crop.valid, config.huber
        )
        cost, curvature, slope, sums = cost + part[0], curvature + part[1], slope + part[2], sums + part[3]
    drawn, shown, squares, weight = (float(x) for x in sums)
    return _Linear(cost, curvature, slope, shown / drawn if drawn > 0 else 0.0, squares, weight)


def _glow(solid: Solid, position: np.ndarray, quaternion: np.ndarray, crop: View) -> float:
    """How much brighter the body is seen by a camera than its Gaussians say: light that turns with the view."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    still = np.empty((0, 6))
    picture = draw_moving(solid, matrix.reshape(3, 3), position, still, crop.camera, crop.background)
    inside = (picture.alpha > 0.8) & crop.valid
    if inside.sum() < 8:
        return 1.0
    ratio = crop.observed[inside].sum(axis=1) / np.maximum(picture.image[inside].sum(axis=1), 0.05)
    return float(np.clip(np.median(ratio), *GLOW))


def _loss(residual: np.ndarray, huber: float) -> float:
    """Return Huber's loss, summed."""
    size = np.abs(residual)
    return float(np.where(size <= huber, 0.5 * size**2, huber * (size - 0.5 * huber)).sum())


def _step(linear: _Linear, damping: float, motions: np.ndarray, config: FitConfig) -> np.ndarray | None:
    scale = np.diag(linear.curvature)
    if scale.max() <= 0:
        return None
    system = linear.curvature + np.diag(damping * scale + 1e-9 * scale.max())
    step = motions.T @ np.linalg.solve(system, linear.slope)
    move, turn = float(np.linalg.norm(step[:3])), float(np.linalg.norm(step[3:]))
    return step / max(1.0, move / config.max_move, turn / config.max_turn)


def _in_pixels(step: np.ndarray, solid: Solid, position: np.ndarray, crops: Sequence[View]) -> float:
    motion = float(np.linalg.norm(step[:3])) + float(np.linalg.norm(step[3:]) * np.abs(solid.means).max())
    return max(motion * crop.camera.fx / float(crop.camera.project(position[None])[1][0]) for crop in crops)


def _covariance(curvature: np.ndarray, noise: float, motions: np.ndarray, config: FitConfig) -> np.ndarray:
    inner = config.inflation * noise * np.linalg.pinv(curvature + 1e-9 * np.diag(np.diag(curvature)))
    floor = np.repeat([config.floor_position**2, config.floor_angle**2], 3)
    covariance = motions.T @ inner @ motions + np.diag(floor)
    return 0.5 * (covariance + covariance.T)
