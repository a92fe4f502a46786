"""Forces and torques that contacts exert on bodies, about any point."""

from __future__ import annotations

import numpy as np

from robot_sim.rotations import cross
from robot_sim.vector.physics import BatchedPhysics


def contact_wrench(physics: BatchedPhysics, bodies: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return what contacts exert on bodies in the current state.

    Like `BatchedPhysics.contact_force` it includes equality constraints between bodies and ``xfrc_applied``.

    Args:
        physics: N environments.
        bodies: Body ids (n,).
        points: Where torques are taken about, world frame [m], (N, n, 3).

    Returns:
        (N, n, 6): force [N], torque [N m], world frame.
    """
    derived = physics._derived
    wrench = derived.get("cfrc_ext")[
        :, bodies
    ]  # torque about the centre of mass of the body's whole tree, force
    centre = derived.get("subtree_com")[:, physics.model.body_rootid[bodies]]
    force = wrench[..., 3:]
    torque = wrench[..., :3] + cross(centre - points, force)
    return np.concatenate([force, torque], axis=-1)
