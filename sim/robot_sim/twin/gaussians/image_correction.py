r"""The correction ``images``: virtual forces on every Gaussian, as Embodied Gaussians and Real-is-Sim apply them.

For each picture the Gaussians' means are free for a few steps of Adam that make the drawn picture more like the
observed one (arXiv 2406.10788, 2504.03597). The bodies are rigid and do not follow: each Gaussian pulls at its body
with

.. math::
    f_i = k_p\, o_i\, (\mu_i' - \mu_i), \qquad \tau_i = (\mu_i - c) \times f_i,

:math:`o_i` being its opacity and :math:`c` the centre of mass. Forces hold until the next picture. Nothing here knows
of latency or friction, and a body has no covariance; `image_poses` is the other way from pictures to corrections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.twin.correction import TickContext, Wrench, clipped, register_correction
from robot_sim.twin.gaussians.cloud import GaussianBody, load_bodies
from robot_sim.twin.gaussians.image_poses import CellPictures, ImageConfig
from robot_sim.twin.gaussians.moving_picture import Solid
from robot_sim.twin.gaussians.photometric import View, around
from robot_sim.twin.gaussians.renderer import Renderer, Splats
from robot_sim.twin.gaussians.renderers import build_renderer
from robot_sim.twin.gaussians.sampling import body_from_model
from robot_sim.twin.geometry import rotated
from robot_sim.twin.history import PoseHistory
from robot_sim.twin.pose_corrections import freedom
from robot_sim.twin.scene import cell_task
from robot_sim.twin.world import TwinWorld

STILL = 1.0  # gradients of the summed squared error well below this count as none [1/m]


@dataclass(frozen=True, kw_only=True)
class ImageForceConfig:
    """Virtual forces from pictures.

    Attributes:
        gaussians: File of `robot_sim.twin.gaussians.cloud.save_bodies`; empty samples the cell's model.
        spacing: Of sampled Gaussians [m].
        renderer: ``torch`` or ``gsplat``.
        iterations: Steps of Adam per picture.
        rate: Of Adam, and so how far a Gaussian moves in a step at most [m].
        stiffness: k_p, of one Gaussian [N/m].
        hold: Forces of a picture act for so long at most [s].
        max_acceleration: Largest force over mass [m/s²].
        max_angular_acceleration: Largest torque over inertia [rad/s²].
        images: How pictures are prepared; its fit is not used.
    """

    gaussians: str = ""
    spacing: float = 0.01
    renderer: str = "torch"
    iterations: int = 3
    rate: float = 0.0015
    stiffness: float = 4.0
    hold: float = 0.1
    max_acceleration: float = 20.0
    max_angular_acceleration: float = 400.0
    images: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        for name in ("spacing", "iterations", "rate", "stiffness", "hold", "max_acceleration"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"correction.{name}: got {getattr(self, name)}, expected above 0")


@register_correction("images", ImageForceConfig)
class ImageForceCorrection:
    """See the module's docstring; the pictures and bodies are prepared when the first tick begins."""

    def __init__(self, config: ImageForceConfig) -> None:
        self._config = config
        self._renderer: Renderer = build_renderer(config.renderer)
        self._pictures: CellPictures | None = None
        self._bodies: dict[str, tuple[Splats, Solid]] = {}
        self._joints: tuple[int, np.ndarray] | None = None
        self._history = PoseHistory()
        self._held: dict[str, tuple[int, Wrench]] = {}

    def begin(self, world: TwinWorld, context: TickContext) -> None:
        """Turn the newest pictures of this tick into forces."""
        if self._pictures is None:
            self._prepare(world)
        assert self._pictures is not None
        self._history.append(context.now_ns, {name: world.pose(name) for name in world.bodies}, {})
        for message in context.observed:
            if message.joints is not None:
                self._joints = message.stamp_ns, message.joints.positions
        with_images = [message for message in context.observed if message.images]
        if with_images:
            newest = with_images[-1]
            joints = None if self._joints is None else self._joints[1]
            views = self._pictures.views(newest.images, world.data.qpos, joints)
            for name in self._bodies:
                then = self._history.at(newest.stamp_ns, name)
                position, quaternion = world.pose(name) if then is None else then[:2]
                wrench = self._wrench(world, name, position, quaternion, views)
                self._held[name] = context.now_ns, wrench
        limit_ns = round(1e9 * self._config.hold)
        self._held = {n: held for n, held in self._held.items() if context.now_ns - held[0] < limit_ns}

    def wrenches(self, world: TwinWorld, step: int) -> Mapping[str, Wrench]:
        """Return the forces of the last picture."""
        return {name: wrench for name, (_, wrench) in self._held.items()}

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._pictures is not None:
            self._pictures.close()

    def _prepare(self, world: TwinWorld) -> None:
        config = self._config
        self._pictures = CellPictures(world.cell, config.images)
        bodies: Mapping[str, GaussianBody]
        if config.gaussians:
            bodies = load_bodies(Path(config.gaussians))
        else:
            model = cell_task(world.cell).visual_model
            bodies = {name: body_from_model(model, name, spacing=config.spacing) for name in world.bodies}
        self._bodies = {
            n: (Splats.of_body(b), Solid.of_body(b)) for n, b in bodies.items() if n in world.bodies
        }

    def _wrench(
        self, world: TwinWorld, name: str, position: np.ndarray, quaternion: np.ndarray, views: Sequence[View]
    ) -> Wrench:
        config, (local, solid) = self._config, self._bodies[name]
        crops = [
            c for view in views if (c := around(view, solid, position, config.images.fit.margin)) is not None
        ]
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, quaternion)
        rotation = torch.as_tensor(matrix.reshape(3, 3), dtype=torch.float32)
        splats = local.moved(rotation, torch.as_tensor(position, dtype=torch.float32))
        moved = displacements(splats, crops, self._renderer, steps=config.iterations, rate=config.rate)
        centre = position + rotated(world.model.body(name).ipos, quaternion)
        forces = config.stiffness * solid.opacities[:, None] * moved
        arms = splats.means.numpy().astype(np.float64) - centre
        along, about = freedom(world, name)
        force, torque = forces.sum(axis=0) * along, np.cross(arms, forces).sum(axis=0) * about
        return Wrench(
            force=clipped(force, config.max_acceleration * world.mass(name)),
            torque=clipped(torque, config.max_angular_acceleration * float(world.inertia(name).max())),
        )


def displacements(
    splats: Splats, views: Sequence[View], renderer: Renderer, *, steps: int, rate: float
) -> np.ndarray:
    """Return by how much (N, 3) each Gaussian moves to make the pictures more alike, a few steps of Adam [m].

    Args:
        splats: The body's Gaussians, in the world.
        views: Crops around the body; none moves nothing.
        renderer: Draws.
        steps: Of Adam.
        rate: Of Adam [m].
    """
    if not views:
        return np.zeros((len(splats), 3))
    means = splats.means.clone().requires_grad_()
    moving = Splats(means, splats.rotations, splats.scales, splats.colours, splats.opacities)
    targets = [
        (
            view.camera,
            torch.as_tensor(view.observed, dtype=means.dtype),
            torch.as_tensor(view.background, dtype=means.dtype),
            torch.as_tensor(view.valid, dtype=means.dtype)[..., None],
        )
        for view in views
    ]
    optimiser = torch.optim.Adam([means], lr=rate, eps=STILL)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.zeros((), dtype=means.dtype)
        for camera, observed, background, valid in targets:
            image = renderer(moving, camera, background).image
            loss = loss + ((image - observed) ** 2 * valid).sum()
        if loss.requires_grad:
            loss.backward()
            optimiser.step()
    return (means.detach() - splats.means).numpy().astype(np.float64)
