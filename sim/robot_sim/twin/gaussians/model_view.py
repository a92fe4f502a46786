"""What a cell's calibrated cameras would see of a MuJoCo model: colours, and which pixels hide what lies behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.rendering import FrameRenderer
from robot_sim.twin.cell import CameraCell


class CellRenderer(FrameRenderer):
    """Draws a model from the cameras of a cell file instead of those of the model; cameras are chosen by name.

    Args:
        model: ``mujoco.MjModel``.
        cameras: Name -> camera.
        hidden_groups: Geometry groups not to draw.
    """

    def __init__(
        self, model: Any, cameras: Mapping[str, CameraCell], *, hidden_groups: tuple[int, ...] = ()
    ) -> None:
        super().__init__(model, hidden_groups=hidden_groups)
        self._cameras = dict(cameras)

    def picture(self, data: Any, camera: str) -> np.ndarray:
        """Return (H, W, 3) uint8 in the camera's own resolution."""
        known = self._known(camera)
        return self.render(data, camera, width=known.width, height=known.height)

    def bodies(self, data: Any, camera: str) -> np.ndarray:
        """Return the id of the body that each pixel shows, (H, W) int; -1 where there is none."""
        known = self._known(camera)
        geoms = self.render_segmentation(data, camera, width=known.width, height=known.height)
        return np.where(geoms >= 0, self._model.geom_bodyid[np.maximum(geoms, 0)], -1)

    def _known(self, camera: str) -> CameraCell:
        if camera not in self._cameras:
            raise ConfigError(unknown_name("camera", camera, self._cameras))
        return self._cameras[camera]

    def _prepared(self, data: Any, camera: str, width: int, height: int) -> Any:
        renderer = self._renderers.get((width, height))
        if renderer is None:
            renderer = self._renderers[width, height] = self._make(width, height)
        renderer.update_scene(data, camera=mujoco.MjvCamera(), scene_option=self._options)
        known = self._known(camera)
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, np.asarray(known.quaternion, dtype=np.float64))
        axes = matrix.reshape(3, 3)
        for eye in renderer.scene.camera:
            eye.pos[:], eye.forward[:], eye.up[:] = known.position, axes[:, 2], -axes[:, 1]
            near = eye.frustum_near
            eye.frustum_top = near * known.cy / known.fy
            eye.frustum_bottom = near * (known.cy - known.height) / known.fy
            eye.frustum_center = near * (0.5 * known.width - known.cx) / known.fx
            eye.frustum_width = near * 0.5 * known.width / known.fx
        for light in renderer.scene.lights[: renderer.scene.nlight]:
            if light.headlight:  # shines from the camera, and was put where MuJoCo's own camera is
                light.pos[:], light.dir[:] = known.position, axes[:, 2]
        return renderer


def movable_and_arm(model: Any) -> np.ndarray:
    """Return which bodies (nbody,) are not fixed to the world: what an empty picture of the cell must not show."""
    return np.asarray(model.body_weldid) != 0


def without_bodies(
    model: Any, data: Any, renderer: CellRenderer, camera: str, hidden: np.ndarray
) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 of the model as if the bodies marked in `hidden` (nbody,) were not there."""
    alpha = model.geom_rgba[:, 3].copy()
    material = model.geom_matid.copy()
    try:
        chosen = hidden[model.geom_bodyid]
        model.geom_rgba[chosen, 3] = 0.0
        model.geom_matid[chosen] = -1
        return renderer.picture(data, camera)
    finally:
        model.geom_rgba[:, 3], model.geom_matid[:] = alpha, material
