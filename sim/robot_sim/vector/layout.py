"""How the inputs of a MuJoCo state are laid out, and which joints move which body."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_sim.engine import mujoco

STATE_SPEC = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def input_spec(model: Any, external_forces: bool) -> int:
    """Return the ``mjtState`` bits of what can be written between steps of this model."""
    bits = mujoco.mjtState
    spec = bits.mjSTATE_CTRL.value
    if external_forces:
        spec |= bits.mjSTATE_QFRC_APPLIED.value | bits.mjSTATE_XFRC_APPLIED.value
    if model.neq:
        spec |= bits.mjSTATE_EQ_ACTIVE.value
    if model.nmocap:
        spec |= bits.mjSTATE_MOCAP_POS.value | bits.mjSTATE_MOCAP_QUAT.value
    return int(spec)


def write_state(model: Any, data: Any, state: np.ndarray, inputs: np.ndarray, spec: int) -> None:
    """Put a state and its inputs into a ``mujoco.MjData``, poses of bodies, cameras and lights included.

    Args:
        model: A model with the joints of the one the state is of, for instance one with visuals.
        data: Its data.
        state: FULLPHYSICS state.
        inputs: Inputs that belong to `spec`.
        spec: ``mjtState`` bits of the inputs.
    """
    mujoco.mj_setState(model, data, state, STATE_SPEC)
    mujoco.mj_setState(model, data, inputs, spec)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)


def split_inputs(model: Any, inputs: np.ndarray, spec: int) -> dict[str, np.ndarray]:
    """Return views of the parts of (N, n) inputs, in MuJoCo's order."""
    bits = mujoco.mjtState
    parts: list[tuple[str, Any, tuple[int, ...]]] = [
        ("ctrl", bits.mjSTATE_CTRL, (model.nu,)),
        ("qfrc_applied", bits.mjSTATE_QFRC_APPLIED, (model.nv,)),
        ("xfrc_applied", bits.mjSTATE_XFRC_APPLIED, (model.nbody, 6)),
        ("eq_active", bits.mjSTATE_EQ_ACTIVE, (model.neq,)),
        ("mocap_pos", bits.mjSTATE_MOCAP_POS, (model.nmocap, 3)),
        ("mocap_quat", bits.mjSTATE_MOCAP_QUAT, (model.nmocap, 4)),
    ]
    views, start = {}, 0
    for name, bit, shape in parts:
        if spec & bit.value:
            size = int(np.prod(shape))
            views[name] = inputs[:, start : start + size].reshape(len(inputs), *shape)
            start += size
    return views


def dof_moves_body(model: Any) -> np.ndarray:
    """Return which degrees of freedom move which body, (nbody, nv) bool."""
    moves = np.zeros((model.nbody, model.nv), dtype=bool)
    for body in range(1, model.nbody):
        moves[body] = moves[model.body_parentid[body]]
        start = model.body_dofadr[body]
        if start >= 0:
            moves[body, start : start + model.body_dofnum[body]] = True
    return moves
