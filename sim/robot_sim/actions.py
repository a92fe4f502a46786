"""Checking actions before they reach a simulator, where a NaN would surface much later as a wild state."""

from __future__ import annotations

import numpy as np

from robot_datasets.errors import UserError
from robot_datasets.features import Feature


class ActionError(UserError):
    """An action has the wrong shape or is not finite."""


def checked_action(action: np.ndarray, feature: Feature, *, task: str) -> np.ndarray:
    """Return `action` as float64 (A,).

    Args:
        action: Action in physical units, anything NumPy can read as numbers.
        feature: The task's action feature, which fixes A.
        task: Task name, for the message.

    Raises:
        ActionError: Wrong shape, or a component is NaN or infinite.
    """
    array = np.asarray(action, dtype=np.float64)
    if array.shape != feature.shape:
        raise ActionError(
            f"task '{task}' got an action of shape {array.shape}, expected {feature.shape}; "
            "pass one action of a chunk per step"
        )
    if not np.isfinite(array).all():
        raise ActionError(
            f"task '{task}' got a non-finite action {array.tolist()}; "
            "check the policy's weights and normaliser"
        )
    return array
