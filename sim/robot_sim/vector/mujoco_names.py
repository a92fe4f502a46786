"""Finding things of a MuJoCo model by name, and the few functions whose names changed between releases."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_datasets.errors import UserError, unknown_name
from robot_sim.engine import mujoco

#: Composite inertia of all bodies, from which ``mj_fullM`` reads (MuJoCo >= 3.4 split it from ``mj_crb``).
mass_matrix_function = getattr(mujoco, "mj_makeM", mujoco.mj_crb)

_FREE_JOINT_QPOS, _BALL_JOINT_QPOS = 7, 4


class SceneError(UserError):
    """A scene does not have what is asked of it."""


class ModelNames:
    """Looks up ids and addresses; an unknown name is an error with the nearest match.

    Args:
        model: Compiled ``mujoco.MjModel``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def body(self, name: str) -> int:
        """Return the id of a body."""
        return self._id("body", mujoco.mjtObj.mjOBJ_BODY, name, self.model.nbody)

    def site(self, name: str) -> int:
        """Return the id of a site."""
        return self._id("site", mujoco.mjtObj.mjOBJ_SITE, name, self.model.nsite)

    def geom(self, name: str) -> int:
        """Return the id of a geom."""
        return self._id("geom", mujoco.mjtObj.mjOBJ_GEOM, name, self.model.ngeom)

    def camera(self, name: str) -> int:
        """Return the id of a camera."""
        return self._id("camera", mujoco.mjtObj.mjOBJ_CAMERA, name, self.model.ncam)

    def actuators(self, *names: str) -> np.ndarray:
        """Return the ids of actuators, (n,) int."""
        kind = mujoco.mjtObj.mjOBJ_ACTUATOR
        return np.array([self._id("actuator", kind, name, self.model.nu) for name in names], dtype=int)

    def qpos(self, *joints: str) -> np.ndarray:
        """Return the addresses in ``qpos`` of joints, one after the other (a free joint has seven), (n,) int."""
        parts = [np.arange(self.model.nq)[self._joint_slice(joint, velocity=False)] for joint in joints]
        return np.concatenate(parts) if parts else np.empty(0, dtype=int)

    def qvel(self, *joints: str) -> np.ndarray:
        """Return the addresses in ``qvel`` of joints, one after the other (a free joint has six), (n,) int."""
        parts = [np.arange(self.model.nv)[self._joint_slice(joint, velocity=True)] for joint in joints]
        return np.concatenate(parts) if parts else np.empty(0, dtype=int)

    def body_geoms(self, *bodies: str) -> np.ndarray:
        """Return the ids of the geoms that hang on these bodies themselves, (n,) int."""
        ids = [self.body(name) for name in bodies]
        return np.flatnonzero(np.isin(self.model.geom_bodyid, ids))

    def _joint_slice(self, name: str, *, velocity: bool) -> slice:
        joint = self._id("joint", mujoco.mjtObj.mjOBJ_JOINT, name, self.model.njnt)
        kind = mujoco.mjtJoint(self.model.jnt_type[joint])
        n_qpos = {mujoco.mjtJoint.mjJNT_FREE: _FREE_JOINT_QPOS, mujoco.mjtJoint.mjJNT_BALL: _BALL_JOINT_QPOS}
        size = n_qpos.get(kind, 1)
        if velocity:
            start = int(self.model.jnt_dofadr[joint])
            return slice(start, start + (size - 1 if size > 1 else 1))
        start = int(self.model.jnt_qposadr[joint])
        return slice(start, start + size)

    def _id(self, what: str, kind: Any, name: str, count: int) -> int:
        found = mujoco.mj_name2id(self.model, kind, name)
        if found < 0:
            known = [mujoco.mj_id2name(self.model, kind, i) or "" for i in range(count)]
            raise SceneError(unknown_name(what, name, [n for n in known if n]))
        return int(found)
