"""Pictures of a simulation's environments, drawn in this process."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.rendering import FrameRenderer


class InProcessCameras:
    """Draws one environment after the other; the renderer is made on first use.

    Args:
        task: The task, whose model with visuals is drawn.
    """

    def __init__(self, task: MujocoTask) -> None:
        self._task = task
        self._renderer: FrameRenderer | None = None
        self._data: Any = None

    def draw(self, simulation: TaskSimulation, rows: np.ndarray, camera: str, size: int) -> np.ndarray:
        """Return images (n, size, size, 3) uint8 of the environments `rows`."""
        model = self._task.visual_model
        if self._renderer is None:
            self._renderer, self._data = FrameRenderer(model), mujoco.MjData(model)
        images = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            simulation.physics.write_to(model, self._data, row)
            image[:] = self._renderer.render(self._data, camera, width=size, height=size)
        return images

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
