"""Demonstrations from recordings of a cell: states from the twin, pictures re-rendered from any viewpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Episode
from robot_datasets.errors import UserError, unknown_name
from robot_datasets.features import ACTION, IMAGE_PREFIX, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_sim.engine import mujoco
from robot_sim.rendering import FrameRenderer
from robot_sim.rotations import matrix_to_quaternion, quaternion_to_matrix
from robot_sim.twin.cell import CameraCell, Cell
from robot_sim.twin.cell_log import CellLog, play
from robot_sim.twin.twin import Twin
from robot_sim.twin.view import TwinView

_SETTLE_NS = 500_000_000  # until then the twin is still finding its cell


class TwinCamera:
    """Draws a twin from a camera of its scene, or from a calibrated one of the cell.

    Args:
        view: The twin as its task sees it.
        name: Of the camera.
        size: Side of the pictures of a camera of the scene [px]; a calibrated one has its own.

    Raises:
        UserError: No such camera, or a calibrated one whose principal point is not in the middle.
    """

    def __init__(self, view: TwinView, name: str, size: int) -> None:
        self._view, model = view, copy.copy(view.task.visual_model)
        scene = [model.camera(i).name for i in range(model.ncam)]
        calibrated = view.cell.cameras.get(name)
        if calibrated is None and name not in scene:
            raise UserError(unknown_name("camera", name, [*view.cell.cameras, *scene]))
        self._camera = name if calibrated is None else scene[0]
        self.width, self.height = (
            (size, size) if calibrated is None else (calibrated.width, calibrated.height)
        )
        self._calibrated = calibrated
        if calibrated is not None:
            _place_camera(model, self._camera, calibrated, name)
        self._model, self._data = model, mujoco.MjData(model)
        self._renderer = FrameRenderer(model)

    def draw(self) -> np.ndarray:
        """Return what it sees now, (H, W, 3) uint8."""
        self._view.dress(self._model, self._data)
        if self._calibrated is not None:  # dressing gives the scene's cameras their own places back
            _place_camera(self._model, self._camera, self._calibrated, self._camera)
            mujoco.mj_camlight(self._model, self._data)
        return self._renderer.render(self._data, self._camera, width=self.width, height=self.height)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


def _place_camera(model: Any, slot: str, camera: CameraCell, name: str) -> None:
    index = model.camera(slot).id
    if abs(camera.cx - camera.width / 2) > 1 or abs(camera.cy - camera.height / 2) > 1:
        raise UserError(
            f"camera '{name}': principal point ({camera.cx:g}, {camera.cy:g}), expected the middle of the picture, "
            f"({camera.width / 2:g}, {camera.height / 2:g}); rectify it first"
        )
    axes = quaternion_to_matrix(np.array(camera.quaternion)) @ np.diag([1.0, -1.0, -1.0])
    model.cam_pos[index], model.cam_quat[index] = camera.position, matrix_to_quaternion(axes)
    model.cam_fovy[index] = np.degrees(2 * np.arctan(camera.height / (2 * camera.fy)))


def demonstration(
    cell: Cell, log: CellLog, *, name: str, cameras: Sequence[str] = (), size: int = 96
) -> Episode:
    """Return a recording as an episode of the task, as the twin saw it.

    Args:
        cell: The cell.
        log: A recording with commands.
        name: Of the episode.
        cameras: Viewpoints, of the scene or calibrated.
        size: Side of the pictures of the scene's cameras [px].

    Raises:
        UserError: No commands, an unknown camera, or the twin was lost for more than a tenth of the time.
    """
    if not log.commands:
        raise UserError(f"recording '{name}' has no commands; a demonstration needs them")
    commands = np.array(log.commands)
    twin = Twin(cell)
    view = TwinView(twin)
    views = {camera: TwinCamera(view, camera, size) for camera in cameras}
    columns: dict[str, list[Any]] = {feature: [] for feature in (*view.task.spec.observation, ACTION)}
    frames: dict[str, list[bytes]] = {IMAGE_PREFIX + camera: [] for camera in cameras}
    next_ns, ticks, lost, success = _SETTLE_NS, 0, 0, False
    for report in play(twin, log):
        if report.time_ns < next_ns:
            continue
        next_ns += round(1e9 / cell.rates.policy)
        ticks, lost = ticks + 1, lost + bool(report.lost)
        success = success or view.succeeds(twin.world)
        for feature, value in view.observe().items():
            columns[feature].append(value)
        index = int(np.searchsorted(commands[:, 0], report.time_ns, side="right")) - 1
        columns[ACTION].append(commands[max(index, 0), 1:].astype(np.float32))
        for camera, drawn in views.items():
            frames[IMAGE_PREFIX + camera].append(encode_frame(drawn.draw(), "png"))
    for drawn in views.values():
        drawn.close()
    if ticks == 0 or lost > 0.1 * ticks:
        raise UserError(
            f"recording '{name}': the twin was lost in {lost} of {ticks} steps; look at it with twin view"
        )
    return Episode(
        source_id=name,
        data={feature: np.stack(values) for feature, values in columns.items()},
        images=dict(frames),
        task=view.task.spec.instruction,
        success=success,
    )


def write_demonstrations(
    cell: Cell,
    logs: Sequence[tuple[str, CellLog]],
    output: str | Path,
    *,
    cameras: Sequence[str] = (),
    size: int = 96,
    progress: Callable[[int, int], None] | None = None,
) -> EpisodeStore:
    """Write recordings as an episode store; an interrupted call continues.

    Args:
        cell: The cell.
        logs: Names and recordings.
        output: Where the store shall appear.
        cameras: Viewpoints.
        size: See `demonstration`.
        progress: Called with episodes done and wanted.
    """
    view = TwinView(Twin(cell))
    spec, features = view.task.spec, dict(view.task.spec.features)
    for camera in cameras:
        drawn = TwinCamera(view, camera, size)
        features[IMAGE_PREFIX + camera] = Feature(dtype="uint8", shape=(drawn.height, drawn.width, 3))
        drawn.close()
    with EpisodeStoreWriter(
        output,
        features=features,
        fps=cell.rates.policy,
        embodiment=spec.embodiment,
        source={"name": f"{cell.name} (digital twin)"},
        conversion={"importer": "robot_sim.twin", "options": {"cell": cell.name, "cameras": list(cameras)}},
        image_encodings={IMAGE_PREFIX + camera: "png" for camera in cameras},
    ) as writer:
        for index, (name, log) in enumerate(logs):
            if name not in writer.done:
                writer.add_episode(demonstration(cell, log, name=name, cameras=cameras, size=size))
            if progress is not None:
                progress(index + 1, len(logs))
        writer.publish()
    return EpisodeStore.open(output)
