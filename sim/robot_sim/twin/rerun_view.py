"""A cell, and a twin in step with a recording of it, in the rerun viewer. Needs the extra ``viz``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_sim.engine import mujoco
from robot_sim.twin.cell import Cell
from robot_sim.twin.cell_log import CellLog, play
from robot_sim.twin.scene import CellScene
from robot_sim.twin.twin import Twin


def view_cell(cell: Cell, log: CellLog | None = None, *, save: Path | None = None) -> None:
    """Show table, objects and cameras of a cell, and, with a recording, twin and observations over time.

    Args:
        cell: The cell.
        log: A recording.
        save: Write this ``.rrd`` file instead of opening the viewer.

    Raises:
        UserError: rerun is not installed.
    """
    try:
        rerun: Any = importlib.import_module("rerun")
    except ModuleNotFoundError as error:
        raise UserError(
            'twin view needs rerun, which is not installed; install it with: pip install "robot-policies[viz]"'
        ) from error
    stream = rerun.RecordingStream("robot_policies", recording_id=f"cell/{cell.name}")
    if save is None:
        stream.spawn()
    else:
        stream.save(save)
    _static(rerun, stream, cell)
    if log is not None:
        _moving(rerun, stream, cell, log)
    stream.flush()
    stream.disconnect()


def _static(rr: Any, stream: Any, cell: Cell) -> None:
    (x0, y0), (x1, y1) = cell.table.low, cell.table.high
    field = np.array([[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0], [x0, y0, 0]])
    stream.log("cell/field", rr.LineStrips3D([field]), static=True)
    for name, camera in cell.cameras.items():
        w, x, y, z = camera.quaternion
        pose = rr.Transform3D(translation=camera.position, quaternion=rr.Quaternion(xyzw=[x, y, z, w]))
        stream.log(f"cell/cameras/{name}", pose, static=True)
        lens = rr.Pinhole(
            focal_length=[camera.fx, camera.fy],
            principal_point=[camera.cx, camera.cy],
            width=camera.width,
            height=camera.height,
        )
        stream.log(f"cell/cameras/{name}", lens, static=True)
    scene = CellScene(cell, timestep=0.004)
    for who in ("twin", "observed"):
        for body in scene.bodies:
            stream.log(f"{who}/{body}", _boxes(rr, scene, body), static=True)


def _boxes(rr: Any, scene: CellScene, body: str) -> Any:
    """A body's boxes in its own frame; other shapes as boxes around them."""
    model = scene.model
    geoms = np.flatnonzero(model.geom_bodyid == model.body(body).id)
    sizes = [
        model.geom_size[geom]
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX
        else np.full(3, model.geom_rbound[geom])
        for geom in geoms
    ]
    return rr.Boxes3D(half_sizes=sizes, centers=model.geom_pos[geoms])


def _moving(rr: Any, stream: Any, cell: Cell, log: CellLog) -> None:
    twin = Twin(cell)
    for message_ns, message in log.messages():
        for body, pose in message.objects.items():
            stream.set_time("time", duration=message_ns * 1e-9)
            stream.log(f"observed/{body}", _pose(rr, pose.position, pose.quaternion))
    for report in play(twin, log):
        stream.set_time("time", duration=report.time_ns * 1e-9)
        stream.log("twin/tool", rr.Points3D([twin.world.tool], radii=0.01))
        for body, known in report.bodies.items():
            stream.log(f"twin/{body}", _pose(rr, *twin.world.pose(body)))
            stream.log(f"error/{body}/mm", rr.Scalars(1e3 * float(np.linalg.norm(known.error[:3]))))
            spread = 1e3 * float(np.sqrt(np.trace(known.covariance[:3, :3])))
            stream.log(f"error/{body}/deviation_mm", rr.Scalars(spread))
            if known.status != "tracking":
                stream.log("status", rr.TextLog(f"{body}: {known.status}"))


def _pose(rr: Any, position: np.ndarray, quaternion: np.ndarray) -> Any:
    w, x, y, z = quaternion
    return rr.Transform3D(translation=position, quaternion=rr.Quaternion(xyzw=[x, y, z, w]))
