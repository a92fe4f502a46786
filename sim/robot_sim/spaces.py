"""Gymnasium spaces from features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import gymnasium
import numpy as np

from robot_datasets.features import Feature
from robot_sim.task import Observation


def observation_space(features: Mapping[str, Feature]) -> gymnasium.Space[Observation]:
    """Return the space of observations with these features.

    Images range over their dtype; other features are unbounded, because states such as a tilted pose or a
    pushed object have no limit that a task could promise.
    """
    boxes: dict[str, gymnasium.Space[Any]] = {}
    for name, feature in features.items():
        dtype = np.dtype(feature.dtype)
        low, high = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        boxes[name] = gymnasium.spaces.Box(low, high, feature.shape, dtype.type)
    return cast("gymnasium.Space[Observation]", gymnasium.spaces.Dict(boxes))
