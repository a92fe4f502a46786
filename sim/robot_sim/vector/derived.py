"""What follows from a batch of states: poses, velocities, Jacobians, inertia, contacts; computed when asked for.

MuJoCo computes these for one state at a time, in microseconds, so one scratch ``MjData`` visits the environments
whose values are out of date and the results are copied into arrays. Values are exact for the current state:
nothing lags a physics step behind, as sensor values after ``mj_step`` do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.vector.layout import STATE_SPEC
from robot_sim.vector.mujoco_names import mass_matrix_function


class Stage:
    """Arrays that are filled together, and for which environments they are up to date."""

    def __init__(self, n_envs: int, shapes: dict[str, tuple[int, ...]]) -> None:
        self.fresh = np.zeros(n_envs, dtype=bool)
        self.arrays = {name: np.zeros((n_envs, *shape)) for name, shape in shapes.items()}


class DerivedQuantities:
    """Quantities of N states, brought up to date on access; see `robot_sim.vector.physics.BatchedPhysics`.

    Args:
        models: One ``MjModel`` per environment (the same object N times where they do not differ).
        states: (N, nstate) FULLPHYSICS states; read, never written.
        inputs: (N, n) user inputs that belong to `input_spec`; read, never written.
        input_spec: ``mjtState`` bits of the inputs.
    """

    def __init__(
        self, models: Sequence[Any], states: np.ndarray, inputs: np.ndarray, input_spec: int
    ) -> None:
        model = models[0]
        self._models, self._states, self._inputs, self._input_spec = models, states, inputs, input_spec
        self._data = mujoco.MjData(model)
        nb, ns, ng, nv = model.nbody, model.nsite, model.ngeom, model.nv
        n = len(models)
        self._stages = {
            "position": Stage(
                n,
                {
                    **{"xpos": (nb, 3), "xquat": (nb, 4), "xmat": (nb, 9), "subtree_com": (nb, 3)},
                    **{
                        "site_xpos": (ns, 3),
                        "site_xmat": (ns, 9),
                        "geom_xpos": (ng, 3),
                        "geom_xmat": (ng, 9),
                    },
                    "cdof": (nv, 6),
                },
            ),
            "velocity": Stage(n, {"cvel": (nb, 6)}),
            "inertia": Stage(n, {"M": (nv, nv), "qfrc_bias": (nv,)}),
            "collision": Stage(n, {}),
            "forces": Stage(
                n,
                {
                    **{"cfrc_ext": (nb, 6), "sensordata": (model.nsensordata,), "qfrc_constraint": (nv,)},
                    **{"qacc": (nv,), "qfrc_actuator": (nv,)},
                },
            ),
        }
        self._contacts: list[tuple[np.ndarray, np.ndarray]] = [(np.empty((0, 2), int), np.empty(0))] * n
        self._pairs: tuple[np.ndarray, np.ndarray] | None = None
        self._fill: dict[str, Callable[[Any, int], None]] = {
            "position": self._position,
            "velocity": self._velocity,
            "inertia": self._inertia,
            "collision": self._collision,
            "forces": self._forces,
        }
        self._home = {name: stage for stage, s in self._stages.items() for name in s.arrays}
        self._scratch = {
            name: getattr(self._data, name) for name in self._home if name != "M"
        }  # NumPy views of the scratch data's own memory

    def invalidate(self, indices: np.ndarray | slice = slice(None)) -> None:
        """Mark environments whose state or inputs have changed."""
        for stage in self._stages.values():
            stage.fresh[indices] = False

    def get(self, name: str) -> np.ndarray:
        """Return a quantity of all environments (N, ...), up to date; read-only, valid until the next change."""
        stage = self._home[name]
        self._update(stage)
        view = self._stages[stage].arrays[name].view()
        view.flags.writeable = False
        return view

    def contacts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, per environment, the geoms in contact (ncon, 2) and their distances (ncon,) [m]."""
        self._update("collision")
        return list(self._contacts)

    def contact_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all contacts of all environments: environment (K,) and geoms (K, 2)."""
        if self._pairs is None or not self._stages["collision"].fresh.all():
            found = self.contacts()
            counts = [len(pairs) for pairs, _ in found]
            rows = np.repeat(np.arange(len(found)), counts)
            self._pairs = rows, np.concatenate([pairs for pairs, _ in found])
        return self._pairs

    def _update(self, stage: str) -> None:
        fresh = self._stages[stage].fresh
        if fresh.all():
            return
        fill = self._fill[stage]
        for i in np.flatnonzero(~fresh).tolist():
            model = self._models[i]
            mujoco.mj_setState(model, self._data, self._states[i], STATE_SPEC)
            if model.nmocap:  # where mocap bodies stand is an input, and poses depend on it
                mujoco.mj_setState(model, self._data, self._inputs[i], self._input_spec)
            fill(model, i)
        fresh[:] = True

    def _copy(self, stage: str, i: int) -> None:
        for name, array in self._stages[stage].arrays.items():
            array[i] = self._scratch[name]

    def _kinematics(self, model: Any) -> None:
        mujoco.mj_kinematics(model, self._data)
        mujoco.mj_comPos(model, self._data)

    def _position(self, model: Any, i: int) -> None:
        self._kinematics(model)
        self._copy("position", i)

    def _velocity(self, model: Any, i: int) -> None:
        self._kinematics(model)
        mujoco.mj_comVel(model, self._data)
        self._copy("velocity", i)

    def _inertia(self, model: Any, i: int) -> None:
        # Controllers want poses, inertia and bias of the same state: the position stage comes along.
        self._kinematics(model)
        position = self._stages["position"]
        if not position.fresh[i]:
            self._copy("position", i)
            position.fresh[i] = True
        mujoco.mj_comVel(model, self._data)
        velocity = self._stages["velocity"]
        if not velocity.fresh[i]:
            self._copy("velocity", i)
            velocity.fresh[i] = True
        mass_matrix_function(model, self._data)
        arrays = self._stages["inertia"].arrays
        mujoco.mj_fullM(model, arrays["M"][i], self._data.qM)
        mujoco.mj_rne(model, self._data, 0, arrays["qfrc_bias"][i])

    def _collision(self, model: Any, i: int) -> None:
        self._kinematics(model)
        mujoco.mj_collision(model, self._data)
        contact = self._data.contact
        self._contacts[i] = (contact.geom.copy(), contact.dist.copy())

    def _forces(self, model: Any, i: int) -> None:
        data = self._data
        mujoco.mj_setState(model, data, self._inputs[i], self._input_spec)
        data.qacc_warmstart[:] = 0.0  # else the previous environment would leak into the solver's result
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        self._copy("forces", i)
