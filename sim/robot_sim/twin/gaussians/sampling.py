"""Gaussians of a body from a MuJoCo model: flat discs on the surfaces of its visible geoms, in their colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import unknown_name
from robot_sim.engine import mujoco
from robot_sim.twin.gaussians.cloud import GaussianBody, GaussianError, joined
from robot_sim.twin.gaussians.surfaces import Surface, box, capsule, cylinder, ellipsoid, triangles

VISIBLE_GROUPS = (0, 1, 2)  # that MuJoCo's renderer draws unless told otherwise
FLATNESS = 0.1  # thickness of a disc over its spacing
SPREAD = (
    0.4  # standard deviation of a disc over its spacing: wider ones fatten silhouettes, which biases poses
)
OPACITY = 0.95


def body_from_mjcf(path: Path, body: str, *, spacing: float, shaded: bool = True) -> GaussianBody:
    """Sample a body of an MJCF file; see `body_from_model`.

    Raises:
        GaussianError: The file does not compile, or `body_from_model` refuses.
    """
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise GaussianError(f"{path}: no MJCF that compiles ({' '.join(str(error).split())})") from error
    return body_from_model(model, body, spacing=spacing, shaded=shaded)


def body_from_model(model: Any, body: str, *, spacing: float, shaded: bool = True) -> GaussianBody:
    """Cover a body's visible geoms with Gaussians.

    Args:
        model: ``mujoco.MjModel``.
        body: Its name.
        spacing: Distance between neighbours [m]; a good value is a pixel or two of the camera, on the object.
        shaded: Whether colours are those under the model's lights, for the body as the model has it at rest; otherwise
            they are the geoms' own. Gaussians keep their colour when the body turns, so shading is an approximation,
            exact for a body that only slides and yaws and a light from straight above.

    Raises:
        GaussianError: No such body, no visible geom, or a geom without a bounded surface (plane, height field).
    """
    if spacing <= 0:
        raise GaussianError(f"spacing: got {spacing} m, expected above 0")
    names = [model.body(i).name for i in range(model.nbody)]
    if body not in names:
        raise GaussianError(unknown_name("body", body, names))
    index = names.index(body)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    parts = []
    for geom in np.flatnonzero(model.geom_bodyid == index).tolist():
        if int(model.geom_group[geom]) in VISIBLE_GROUPS and _colour(model, geom)[3] > 0:
            parts.append(_geom(model, data, geom, spacing, shaded))
    if not parts:
        raise GaussianError(f"body '{body}' shows nothing: no geom in groups 0 to 2 with a colour")
    return joined(parts)


def _geom(model: Any, data: Any, geom: int, spacing: float, shaded: bool) -> GaussianBody:
    points, normals = _surface(model, geom, spacing)
    n = len(points)
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    turn = rotation.reshape(3, 3)
    points, outward = points @ turn.T + model.geom_pos[geom], normals @ turn.T
    red, green, blue, alpha = _colour(model, geom)
    light = np.ones((n, 3))
    if shaded:
        light = _light(model, normals @ data.geom_xmat[geom].reshape(3, 3).T)
    return GaussianBody(
        means=points,
        scales=np.tile([SPREAD * spacing, SPREAD * spacing, FLATNESS * spacing], (n, 1)),
        quaternions=np.array([_quaternion_of_normal(normal) for normal in outward]),
        colours=np.clip(light * np.array([red, green, blue]), 0.0, 1.0),
        opacities=np.full(n, OPACITY * alpha),
    )


def _surface(model: Any, geom: int, spacing: float) -> Surface:
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    types = mujoco.mjtGeom
    makers: dict[int, Callable[[], Surface]] = {
        int(types.mjGEOM_BOX): lambda: box(size, spacing),
        int(types.mjGEOM_SPHERE): lambda: ellipsoid(np.full(3, size[0]), spacing),
        int(types.mjGEOM_ELLIPSOID): lambda: ellipsoid(size, spacing),
        int(types.mjGEOM_CYLINDER): lambda: cylinder(size[0], size[1], spacing),
        int(types.mjGEOM_CAPSULE): lambda: capsule(size[0], size[1], spacing),
        int(types.mjGEOM_MESH): lambda: triangles(_mesh(model, int(model.geom_dataid[geom])), spacing),
    }
    if kind not in makers:
        name = model.geom(geom).name or f"number {geom}"
        raise GaussianError(f"geom {name}: a {types(kind).name[7:].lower()} has no bounded surface to cover")
    return makers[kind]()


def _mesh(model: Any, mesh: int) -> np.ndarray:
    """Corners of a mesh's triangles (F, 3, 3), geom frame."""
    first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    start, faces = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    return model.mesh_vert[first : first + count][model.mesh_face[start : start + faces]].astype(np.float64)


def _colour(model: Any, geom: int) -> np.ndarray:
    material = int(model.geom_matid[geom])
    # A geom's own colour counts unless it is MuJoCo's default grey, as in MuJoCo's renderer.
    own = model.geom_rgba[geom]
    return (
        model.mat_rgba[material] if material >= 0 and np.allclose(own, 0.5 * np.array([1, 1, 1, 2])) else own
    )


def _light(model: Any, normals: np.ndarray) -> np.ndarray:
    """Lambert's law under the model's directional lights; the headlight is taken to shine from straight above."""
    head = model.vis.headlight
    light = np.tile(np.asarray(head.ambient, float), (len(normals), 1))
    if head.active:
        light = light + np.clip(normals[:, 2:], 0, 1) * np.asarray(head.diffuse)
    for i in range(model.nlight):
        if model.light_active[i]:
            towards = -model.light_dir[i] / np.linalg.norm(model.light_dir[i])
            light = (
                light
                + model.light_ambient[i]
                + np.clip(normals @ towards, 0, 1)[:, None] * model.light_diffuse[i]
            )
    return light


def _quaternion_of_normal(normal: np.ndarray) -> np.ndarray:
    """A rotation wxyz that turns z into `normal`."""
    quaternion = np.empty(4)
    mujoco.mju_quatZ2Vec(quaternion, np.ascontiguousarray(normal, dtype=np.float64))
    return quaternion
