"""Pictures of a cell, read as observed poses of its objects: what the twin's filter takes like any tracker's.

For every picture: pixels in which the arm is seen are left out (its joints at the picture's stamp are known, and the
model says where it is), the empty cell is the background, scaled to the exposure of the picture, and the pose that the
twin had at the stamp is where the fit starts. Latency, outliers and lost objects are then the twin's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.twin.cell import Cell
from robot_sim.twin.gaussians.camera import Pinhole, reduced_picture
from robot_sim.twin.gaussians.cloud import GaussianBody
from robot_sim.twin.gaussians.model_view import CellRenderer, movable_and_arm, without_bodies
from robot_sim.twin.gaussians.moving_picture import Solid, draw_moving
from robot_sim.twin.gaussians.photometric import FREE, PLANAR, FitConfig, PoseFit, View, fit_pose
from robot_sim.twin.gaussians.search import search_pose
from robot_sim.twin.observed import ObservationError, ObservedPose, ObservedState
from robot_sim.twin.scene import cell_task
from robot_sim.twin.twin import Twin

Pose = tuple[np.ndarray, np.ndarray]
JOINTS_WITHIN = (
    50_000_000  # joints this much older or newer than a picture are still those of the picture [ns]
)


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How pictures are compared.

    Attributes:
        reduce: Blocks of so many by so many pixels are averaged first.
        arm_border: The arm's pixels are widened by so many [px of the reduced picture].
        exposure: Whether the picture's brightness and tint are estimated from the background.
        fit: The fit.
    """

    reduce: int = 1
    arm_border: int = 2
    exposure: bool = True
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if self.reduce < 1 or self.arm_border < 0:
            raise ConfigError(
                f"images: reduce {self.reduce}, arm_border {self.arm_border}; expected >= 1 and >= 0"
            )


class CellPictures:
    """Prepares a cell's pictures for a fit: reduced, without the arm, with the empty cell behind.

    Args:
        cell: The cell; all its cameras are used.
        config: How.
        empty: Camera name -> (H, W, 3) uint8 picture of the cell without arm and objects; None draws the model.
        model: Compiled model with visuals; None takes the cell's own.

    Raises:
        ConfigError: The cell has no cameras.
        RenderingError: No off-screen OpenGL here: the arm could not be masked.
    """

    def __init__(
        self,
        cell: Cell,
        config: ImageConfig,
        *,
        empty: Mapping[str, np.ndarray] | None = None,
        model: Any = None,
    ) -> None:
        if not cell.cameras:
            raise ConfigError("cameras: none; pictures need at least one calibrated camera in the cell file")
        task = cell_task(cell)
        self._config, self._cameras = config, dict(cell.cameras)
        self._pinholes = {n: Pinhole.from_cell(c).reduced(config.reduce) for n, c in self._cameras.items()}
        self._model = model if model is not None else task.visual_model
        self._data = mujoco.MjData(self._model)
        self._qpos = task.names.qpos(*task.arm.mount.joints)  # type: ignore[attr-defined]
        self._renderer = CellRenderer(self._model, self._cameras)
        self._moving = movable_and_arm(self._model)
        self._objects = np.zeros(self._model.nbody, dtype=bool)
        self._objects[[self._model.body(name).id for name in cell.objects]] = True
        mujoco.mj_forward(self._model, self._data)
        drawn = empty if empty is not None else {n: self._draw_empty(n) for n in self._cameras}
        self._empty = {name: self._floats(name, picture) for name, picture in drawn.items()}
        missing = sorted(set(self._cameras) - set(self._empty))
        if missing:
            raise ConfigError(
                f"empty pictures: none of camera {', '.join(missing)}; take one, or draw the model"
            )

    def views(
        self, images: Mapping[str, np.ndarray], qpos: np.ndarray, joints: np.ndarray | None
    ) -> list[View]:
        """Return the views of some pictures.

        Args:
            images: Camera name -> (H, W, 3) uint8.
            qpos: (nq,) a state whose gripper is taken.
            joints: (n,) of the arm when the pictures were taken [rad]; None takes those of `qpos`.

        Raises:
            ObservationError: An unknown camera, or a picture of the wrong size or type.
        """
        self._data.qpos[:] = qpos
        if joints is not None:
            self._data.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        views = []
        for name, picture in images.items():
            observed = self._floats(name, picture)
            valid = ~widened(self._arm(name), self._config.arm_border)
            background = self._empty[name]
            if self._config.exposure:
                background = background * exposure(observed, background, valid)
            views.append(View(self._pinholes[name], observed, background, valid))
        return views

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def _draw_empty(self, camera: str) -> np.ndarray:
        return without_bodies(self._model, self._data, self._renderer, camera, self._moving)

    def _floats(self, camera: str, picture: np.ndarray) -> np.ndarray:
        if camera not in self._cameras:
            raise ObservationError(unknown_name("camera", camera, self._cameras))
        expected = (self._cameras[camera].height, self._cameras[camera].width, 3)
        if np.shape(picture) != expected or picture.dtype != np.uint8:
            raise ObservationError(
                f"picture of camera '{camera}': got {np.shape(picture)} {picture.dtype}, expected {expected} uint8"
            )
        return reduced_picture(picture.astype(np.float64) / 255.0, self._config.reduce)

    def _arm(self, camera: str) -> np.ndarray:
        """Which reduced pixels show the arm, (H, W) bool."""
        alpha, chosen = self._model.geom_rgba[:, 3].copy(), self._objects[self._model.geom_bodyid]
        try:
            self._model.geom_rgba[chosen, 3] = 0.0  # what is not drawn hides nothing
            seen = self._renderer.bodies(self._data, camera)
        finally:
            self._model.geom_rgba[:, 3] = alpha
        arm = (seen >= 0) & self._moving[np.maximum(seen, 0)]
        return reduced_picture(arm.astype(np.float64), self._config.reduce) > 0


class ImagePoses:
    """Adds observed poses to messages that hold pictures.

    Args:
        cell: The cell.
        bodies: Object -> its Gaussians; objects without are not read from pictures.
        config: How.
        empty: See `CellPictures`.

    Attributes:
        fits: Object -> the last fit, or None if the last one failed.
        failures: Object -> pictures in which it was not found.
    """

    def __init__(
        self, cell: Cell, bodies: Mapping[str, GaussianBody], *, config: ImageConfig | None = None,
        empty: Mapping[str, np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        for name in bodies:
            if name not in cell.objects:
                raise ConfigError(f"gaussians: {unknown_name('object', name, cell.objects)}")
        self._cell, self._config = cell, config or ImageConfig()
        self._solids = {name: Solid.of_body(body) for name, body in bodies.items()}
        self._pictures = CellPictures(cell, self._config, empty=empty)
        self._joints: list[tuple[int, np.ndarray]] = []
        self.fits: dict[str, PoseFit | None] = {}
        self.failures: dict[str, int] = dict.fromkeys(bodies, 0)

    def read(self, messages: Sequence[ObservedState], twin: Twin) -> list[ObservedState]:
        """Return the messages for `Twin.tick`, with the poses that their pictures show.

        The fit starts where the twin had the object at the picture's stamp. If it fails, or there is no such pose, a
        planar object is searched for. Poses that were sent along are kept instead of fitted ones.

        Args:
            messages: What arrived.
            twin: Who is to be told.

        Raises:
            ObservationError: A picture of an unknown camera, or of the wrong size or type.
        """
        for message in messages:
            if message.joints is not None:
                self._joints = [*self._joints[-200:], (message.stamp_ns, message.joints.positions)]
        return [self._read(message, twin) if message.images else message for message in messages]

    def close(self) -> None:
        """Free the OpenGL context."""
        self._pictures.close()

    def _read(self, message: ObservedState, twin: Twin) -> ObservedState:
        qpos = twin.world.data.qpos
        views = self._pictures.views(message.images, qpos, self._joints_at(message.stamp_ns))
        poses: dict[str, Pose] = {}
        for name in self._solids:
            then = twin.history.at(message.stamp_ns - twin.lag_ns, name)
            poses[name] = then[:2] if then is not None else twin.world.pose(name)
        found: dict[str, ObservedPose] = {}
        for name in self._solids:
            fit = self._fit(name, poses, views)
            self.fits[name] = fit
            if fit is None:
                self.failures[name] += 1
            else:
                found[name] = ObservedPose(
                    position=fit.position, quaternion=fit.quaternion, covariance=fit.covariance
                )
        return replace(message, objects={**found, **message.objects}, images={})

    def _fit(self, name: str, poses: Mapping[str, Pose], views: Sequence[View]) -> PoseFit | None:
        solid, config = self._solids[name], self._config.fit
        others = [other for other in poses if other != name]
        behind = [self._with_others(view, others, poses) for view in views]
        planar = self._cell.objects[name].motion == "planar"
        motions = PLANAR if planar else FREE
        fit = fit_pose(solid, *poses[name], behind, motions=motions, config=config)
        if fit is None and planar:
            fit = search_pose(solid, *poses[name], behind, config=config)
        return fit

    def _with_others(self, view: View, others: Sequence[str], poses: Mapping[str, Pose]) -> View:
        """Other objects belong to the background, where the twin has them; what they hide is not known of here."""
        background = view.background
        for name in others:
            matrix = np.empty(9)
            mujoco.mju_quat2Mat(matrix, poses[name][1])
            background = draw_moving(
                self._solids[name],
                matrix.reshape(3, 3),
                poses[name][0],
                np.empty((0, 6)),
                view.camera,
                background,
            ).image
        return replace(view, background=background)

    def _joints_at(self, stamp_ns: int) -> np.ndarray | None:
        if not self._joints:
            return None
        nearest = min(self._joints, key=lambda entry: abs(entry[0] - stamp_ns))
        return nearest[1] if abs(nearest[0] - stamp_ns) <= JOINTS_WITHIN else None


def widened(mask: np.ndarray, border: int) -> np.ndarray:
    """Return a mask (H, W) whose true pixels reach `border` pixels further in all directions."""
    padded = np.pad(mask, border)
    wide = np.zeros_like(mask)
    for dy in range(2 * border + 1):
        for dx in range(2 * border + 1):
            wide |= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return wide


def exposure(observed: np.ndarray, background: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return gains (3,) that make the background as bright as the picture: medians, so that objects do not count."""
    # A median needs no more than a few hundred pixels.
    stride = max(1, int(np.sqrt(valid.size / 1500)))
    seen, empty = observed[::stride, ::stride], background[::stride, ::stride]
    chosen = valid[::stride, ::stride] & (empty.min(axis=2) > 0.05) & (seen.max(axis=2) < 0.999)
    if chosen.sum() < 32:
        return np.ones(3)
    return np.clip(np.median(seen[chosen] / empty[chosen], axis=0), 0.25, 4.0)
