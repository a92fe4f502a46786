"""Who steps a batch, by name."""

from __future__ import annotations

from robot_datasets.errors import UserError, unknown_name
from robot_sim.vector.stepper import Batch, RolloutStepper, Stepper

BACKENDS = ("mujoco", "warp")


def make_stepper(backend: str, batch: Batch, *, threads: int | None = None) -> Stepper:
    """Return who steps a batch.

    Args:
        backend: ``mujoco``, ``warp`` or ``warp:DEVICE``, for instance ``warp:cuda:1`` or ``warp:cpu``.
        batch: What is stepped.
        threads: Worker threads of ``mujoco``; see `RolloutStepper`.

    Raises:
        UserError: There is no such backend, it is not installed, or it cannot step this model.
    """
    kind, _, device = backend.partition(":")
    if kind not in BACKENDS or (kind == "mujoco" and device):
        raise UserError(unknown_name("physics backend", backend, BACKENDS))
    if kind == "mujoco":
        return RolloutStepper(batch, threads)
    try:  # not at the top: an optional package, which takes seconds to load
        from robot_sim.vector.warp_stepper import WarpStepper
    except ImportError as error:
        raise UserError(
            f"backend '{backend}' needs mujoco_warp, which cannot be imported ({error}); install it with: "
            "pip install 'robot-policies[warp]', or use backend='mujoco'"
        ) from error
    return WarpStepper(batch, device=device or None)
