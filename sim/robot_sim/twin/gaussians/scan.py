"""Gaussians of one body from a scan: posed pictures of it, to which everything about the Gaussians is fitted.

A picture says where the body is by a mask (any segmentation) or by a picture of the same view without the body. The
Gaussians start inside a box, those carved away that any mask contradicts, and are then fitted by the differentiable
renderer. Geometry for the physics does not come from here: a scan dresses a body that the model has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from robot_datasets.errors import UserError
from robot_sim.engine import mujoco
from robot_sim.twin.gaussians.camera import Pinhole
from robot_sim.twin.gaussians.cloud import GaussianBody
from robot_sim.twin.gaussians.renderer import Renderer, Splats, render, rotation_matrices

FAINT = 0.05  # opacity under which a Gaussian is dropped in the end
OUTSIDE = 0.1  # share of the views that may contradict a starting point: masks are never perfect


class ScanError(UserError):
    """A scan's pictures cannot be used."""


@dataclass(frozen=True, eq=False)
class ScanView:
    """One picture of a scan.

    Attributes:
        camera: The camera.
        picture: (H, W, 3) floats in [0, 1].
        mask: (H, W) bool, where the body is; or None.
        empty: (H, W, 3) floats in [0, 1], the same view without the body; or None.
    """

    camera: Pinhole
    picture: np.ndarray
    mask: np.ndarray | None = None
    empty: np.ndarray | None = None

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        for name, values, shape in (
            ("picture", self.picture, (*size, 3)),
            ("mask", self.mask, size),
            ("empty", self.empty, (*size, 3)),
        ):
            if values is not None and (np.shape(values) != shape or not np.isfinite(values).all()):
                raise ScanError(
                    f"scan: {name} has shape {np.shape(values)}, expected {shape} of finite numbers"
                )
        if self.mask is None and self.empty is None:
            raise ScanError(
                "scan: a view has neither a mask nor a picture without the body; give one of them"
            )


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """How a scan is fitted.

    Attributes:
        count: Gaussians to start from.
        steps: Of Adam, each on one view.
        rate: For colours, opacities and orientations; means move by `reach` of it.
        reach: Step of means and (logarithmic) scales over the box's size.
        seed: Of starting points and of the order of views.
    """

    count: int = 400
    steps: int = 400
    rate: float = 0.03
    reach: float = 0.01
    seed: int = 0


def scan_body(
    views: Sequence[ScanView], *, low: np.ndarray, high: np.ndarray, position: np.ndarray | None = None,
    rotation: np.ndarray | None = None, config: ScanConfig | None = None, renderer: Renderer = render,
    progress: Callable[[int, float], None] | None = None,
) -> GaussianBody:  # fmt: skip
    """Fit Gaussians to posed pictures.

    Args:
        views: The pictures, from all sides that are to be known.
        low: (3,) lower corner of a box that holds the body, world frame [m]; a table plane is its lower end.
        high: (3,) upper corner [m].
        position: (3,) of the body frame during the scan [m]; None is the world's origin.
        rotation: (3, 3) from body axes to world axes during the scan; None is the world's.
        config: How.
        renderer: Draws.
        progress: Called after each step with its number and loss.

    Raises:
        ScanError: No views, an empty box, or masks that agree on no point of the box.
    """
    config = config or ScanConfig()
    if not views or not (np.asarray(low) < np.asarray(high)).all():
        raise ScanError(
            f"scan: {len(views)} views in a box from {list(low)} to {list(high)}; expected views, and low < high"
        )
    random = np.random.default_rng(config.seed)
    points, colours = _start(views, np.asarray(low, float), np.asarray(high, float), config.count, random)
    free = _Parameters(points, colours, float(np.prod(np.asarray(high) - low)) ** (1 / 3), config)
    targets = [_target(view) for view in views]
    for step in range(config.steps):
        camera, picture, mask, empty = targets[int(random.integers(len(targets)))]
        behind = empty if empty is not None else torch.as_tensor(random.random(3), dtype=torch.float32)
        wanted = picture
        if mask is not None:
            wanted = torch.where(mask[..., None], picture, behind.expand_as(picture))
        drawn = renderer(free.splats(), camera, behind)
        loss = (drawn.image - wanted).abs().mean()
        if mask is not None:
            loss = loss + 0.2 * (drawn.alpha - mask.float()).abs().mean()
        free.descend(loss)
        if progress is not None:
            progress(step, float(loss))
    return free.body(
        np.zeros(3) if position is None else np.asarray(position, float),
        np.eye(3) if rotation is None else np.asarray(rotation, float),
    )


def psnr(drawn: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio [dB] of pictures in [0, 1], over the pixels of a mask if one is given."""
    difference = (drawn - reference) ** 2
    error = float(difference.mean() if mask is None else difference[mask].mean())
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


class _Parameters:
    """What is fitted, in coordinates that know no bounds."""

    def __init__(self, points: np.ndarray, colours: np.ndarray, size: float, config: ScanConfig) -> None:
        n = len(points)
        spacing = size / n ** (1 / 3)
        self._means = torch.tensor(points, dtype=torch.float32, requires_grad=True)
        self._scales = torch.full((n, 3), float(np.log(0.5 * spacing)), requires_grad=True)
        self._turns = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(n, 1).requires_grad_()
        self._colours = torch.logit(torch.tensor(colours, dtype=torch.float32), eps=0.02).requires_grad_()
        self._opacities = torch.full((n,), 1.0, requires_grad=True)
        self._optimiser = torch.optim.Adam(
            [
                {"params": [self._means], "lr": config.reach * size},
                {"params": [self._scales], "lr": config.rate},
                {"params": [self._turns, self._colours, self._opacities], "lr": config.rate},
            ],
            eps=1e-10,
        )
        self._schedule = torch.optim.lr_scheduler.ExponentialLR(
            self._optimiser, 0.1 ** (1 / max(1, config.steps))
        )

    def splats(self) -> Splats:
        """The Gaussians as they are now."""
        return Splats(
            self._means, rotation_matrices(self._turns), self._scales.exp(), self._colours.sigmoid(),
            self._opacities.sigmoid(),
        )  # fmt: skip

    def descend(self, loss: torch.Tensor) -> None:
        """Take a step."""
        self._optimiser.zero_grad()
        if loss.requires_grad:
            loss.backward()
            self._optimiser.step()
        self._schedule.step()

    def body(self, position: np.ndarray, rotation: np.ndarray) -> GaussianBody:
        """Leave out what is not seen, and change to the body's frame."""
        with torch.no_grad():
            kept = self._opacities.sigmoid() > FAINT
            if not kept.any():
                raise ScanError(
                    "scan: every Gaussian vanished; check that poses, masks and box belong together"
                )
            turn = _quaternion(rotation.T)
            turns = self._turns[kept] / self._turns[kept].norm(dim=1, keepdim=True)
            return GaussianBody(
                means=(self._means[kept].numpy() - position) @ rotation,
                scales=self._scales[kept].exp().numpy(),
                quaternions=_multiplied(turn, turns.numpy().astype(np.float64)),
                colours=self._colours[kept].sigmoid().numpy(),
                opacities=self._opacities[kept].sigmoid().numpy(),
            )


def _start(
    views: Sequence[ScanView], low: np.ndarray, high: np.ndarray, count: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) of the box that the masks allow, and the mean colours (N, 3) that the pictures show there."""
    points = low + random.random((40 * count, 3)) * (high - low)
    against, seen, colours = np.zeros(len(points)), np.zeros(len(points)), np.zeros((len(points), 3))
    for view in views:
        pixels, depth = view.camera.project(points)
        column, row = np.floor(pixels).astype(int).T
        inside = (
            (depth > 0)
            & (column >= 0)
            & (row >= 0)
            & (column < view.camera.width)
            & (row < view.camera.height)
        )
        row, column = row[inside], column[inside]
        mask = view.mask
        if mask is None and view.empty is not None:
            mask = np.abs(view.picture - view.empty).max(axis=2) > 0.05
        assert mask is not None
        seen[inside] += 1
        against[inside] += ~mask[row, column]
        colours[inside] += view.picture[row, column]
    allowed = (seen > 0) & (against <= OUTSIDE * seen)
    if allowed.sum() < 8:
        raise ScanError(
            "scan: the masks agree on no part of the box; check the cameras' poses, the masks and the box"
        )
    chosen = np.flatnonzero(allowed)[:count]
    return points[chosen], colours[chosen] / seen[chosen, None]


Target = tuple[Pinhole, torch.Tensor, torch.Tensor | None, torch.Tensor | None]


def _target(view: ScanView) -> Target:
    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    return (
        view.camera,
        tensor(view.picture),
        None if view.mask is None else torch.as_tensor(np.asarray(view.mask, dtype=bool)),
        None if view.empty is None else tensor(view.empty),
    )


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation, dtype=np.float64).ravel())
    return quaternion


def _multiplied(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Products (N, 4) of one quaternion wxyz (4,) and many (N, 4)."""
    w, v, a, b = first[0], first[1:], second[:, :1], second[:, 1:]
    return np.concatenate([w * a - b @ v[:, None], w * b + a * v + np.cross(v, b)], axis=1)
