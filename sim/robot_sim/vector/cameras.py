"""Pictures of a simulation's environments.

==============  ==========================  =======================================
kind            array                       meaning
==============  ==========================  =======================================
rgb             (n, size, size, 3) uint8    colours
depth           (n, size, size) float32     distance along the viewing direction [m]
segmentation    (n, size, size) int32       geom id of the model with visuals, or -1
==============  ==========================  =======================================
"""

from __future__ import annotations

import copy
from typing import Any, Literal, Protocol

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.rendering import FrameRenderer

Kind = Literal["rgb", "depth", "segmentation"]
KINDS: dict[str, tuple[tuple[int, ...], str]] = {
    "rgb": ((3,), "uint8"),
    "depth": ((), "float32"),
    "segmentation": ((), "int32"),
}


class Cameras(Protocol):
    """Draws the cameras of some environments."""

    def draw(
        self, simulation: TaskSimulation, rows: np.ndarray, camera: str, size: int, kind: Kind = "rgb"
    ) -> np.ndarray:
        """Return pictures of the environments `rows`; see the module's docstring."""
        ...

    def close(self) -> None:
        """Free contexts and processes."""
        ...


class Painter:
    """Draws rows of states in this process; the renderer is made on first use.

    Args:
        task: The task, whose model with visuals is drawn.
    """

    def __init__(self, task: MujocoTask) -> None:
        self.task = task
        self._renderer: FrameRenderer | None = None
        self._model: Any = None
        self._data: Any = None

    @property
    def model(self) -> Any:
        """The painter's own copy of the model with visuals, whose looks may be changed."""
        if self._model is None:
            self._model = copy.copy(self.task.visual_model)
        return self._model

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData`` that is drawn; set its state first."""
        if self._renderer is None:
            self._renderer, self._data = FrameRenderer(self.model), mujoco.MjData(self.model)
        return self._data

    def paint(self, camera: str, size: int, kind: Kind) -> np.ndarray:
        """Return a picture of `data`."""
        data, renderer = self.data, self._renderer
        assert renderer is not None
        draw = {
            "rgb": renderer.render,
            "depth": renderer.render_depth,
            "segmentation": renderer.render_segmentation,
        }
        return draw[kind](data, camera, width=size, height=size)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def empty_pictures(n: int, size: int, kind: Kind) -> np.ndarray:
    """Return an array for n pictures."""
    channels, dtype = KINDS[kind]
    return np.empty((n, size, size, *channels), dtype=dtype)


class InProcessCameras:
    """Draws one environment after the other.

    Args:
        task: The task.
    """

    def __init__(self, task: MujocoTask) -> None:
        self._painter = Painter(task)

    def draw(
        self, simulation: TaskSimulation, rows: np.ndarray, camera: str, size: int, kind: Kind = "rgb"
    ) -> np.ndarray:
        """Return pictures of the environments `rows`."""
        pictures = empty_pictures(len(rows), size, kind)
        for picture, row in zip(pictures, rows.tolist(), strict=True):
            simulation.dress(self._painter.model, self._painter.data, row)
            picture[...] = self._painter.paint(camera, size, kind)
        return pictures

    def close(self) -> None:
        """Free the renderer."""
        self._painter.close()
