"""Hindsight goals: what an episode reached later is what its earlier actions were for.

A window is given G consecutive frames of its own episode's future as its goal. With G = 2, now is step 3 of an
episode of 9 steps, and the draw says that the goal lies d = 4 steps ahead::

    step of the episode     0   1   2   3   4   5   6   7   8 | beyond the end: never
    observation (T_o = 2)           o   o                     |
    goal (G = 2)                                g   g         |     the last frame is step now + d

The distance d lies between `min_distance` and the end of the episode, and follows

    geometric   a geometric distribution of mean `mean_distance`, conditioned on the rest of the episode
    uniform     every step that is left
    final       the last step

Near the end, where less than `min_distance` steps are left, the goal is the last step. Goal frames are never
before now. The draw is a pure function of (seed, draw, window), where the draw counts how often the window was
read before, its epoch: a killed run continues with the same goals, and another epoch brings others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError

Int64 = NDArray[np.int64]

GOAL_PREFIX = "goal."
"""``batch["goal." + feature]`` is (B, G, ...)."""

TASK = "task"
"""``batch["task"]`` holds the instructions, B strings: a goal in words."""


@dataclass(frozen=True, kw_only=True)
class GoalSpec:
    """Which goals a window is given; see the module docstring.

    Attributes:
        features: Features of the goal: observation features of the store.
        n_steps: Frames G.
        sampling: Distribution of the distance.
        mean_distance: Mean of the geometric distribution before the episode's end cuts it off [steps].
        min_distance: Smallest distance [steps].
        seed: Seed of the draws.
    """

    features: tuple[str, ...]
    n_steps: int = 1
    sampling: Literal["geometric", "uniform", "final"] = "geometric"
    mean_distance: float = 32.0
    min_distance: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.features:
            raise DatasetError("goal.features is empty; name at least one feature, or leave the goal out")
        if self.n_steps < 1 or self.min_distance < 0 or not 1 < self.mean_distance < np.inf:
            raise DatasetError(
                "goal needs n_steps >= 1, min_distance >= 0 and mean_distance > 1, "
                f"got {self.n_steps}, {self.min_distance} and {self.mean_distance}"
            )


def goal_steps(spec: GoalSpec, windows: Int64, draws: Int64, *, now: Int64, last: Int64) -> Int64:
    """Steps in the store of each window's goal frames, (B, G).

    Args:
        spec: How goals are drawn.
        windows: Window numbers, (B,).
        draws: How often each was read before, (B,).
        now: Step of each window's last observation, (B,).
        last: Last step of its episode, (B,).
    """
    left = last - now
    # Distances from `least` on, of which there are `choices`.
    least = np.minimum(spec.min_distance, left)
    choices = left - least + 1
    if spec.sampling == "final":
        distance = left
    else:
        u = uniform(spec.seed, draws, windows)
        if spec.sampling == "uniform":
            extra = np.floor(u * choices)
        else:
            decay = 1.0 - 1.0 / spec.mean_distance
            extra = np.floor(np.log1p(-u * (1.0 - decay**choices)) / np.log(decay))
        distance = least + np.minimum(extra.astype(np.int64), choices - 1)
    frames = (now + distance)[:, None] - np.arange(spec.n_steps - 1, -1, -1, dtype=np.int64)
    return np.maximum(frames, now[:, None])


def uniform(seed: int, draws: Int64, windows: Int64) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, draw, window), without a generator's state; (B,).

    The finaliser of SplitMix64 (Steele et al., 2014), applied to one number after the other.
    """
    state = np.full(len(windows), seed, dtype=np.uint64)
    for word in (draws, windows):
        state = _scramble(state ^ _scramble(word.astype(np.uint64)))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
