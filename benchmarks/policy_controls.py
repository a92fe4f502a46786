"""Policies that a trained one has to beat: staying where one is, and the mean of all demonstrated actions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robot_datasets.features import ACTION, STATE
from robot_policies.policy import ActionChunk, Generators, LossOutput, Policy
from robot_policies.spec import PolicySpec

CONTROLS = {"nothing": "control: do nothing", "mean": "control: the mean action, always"}

HOLD_POSITION = {"pusht": True, "lift": False}
"""Whether an action is a position to hold (PushT: the agent's own), or a motion, which 0 leaves out (Lift)."""


class ConstantPolicy(Policy):
    """One action at every step, or the position that the robot has.

    Args:
        spec: Features and horizons.
        action: (A,) in physical units; None holds the first A components of the robot's state.
    """

    def __init__(self, spec: PolicySpec, action: np.ndarray | None) -> None:
        super().__init__(spec)
        self.action = None if action is None else torch.tensor(action.tolist())

    def compute_loss(self, batch: Mapping[str, Tensor]) -> LossOutput:
        """There is nothing to learn."""
        raise NotImplementedError("a constant policy is not trained")

    def predict_chunk(
        self,
        observation: Mapping[str, Tensor],
        *,
        goal: Mapping[str, Any] | None = None,
        generator: Generators = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> ActionChunk:
        """Repeat the action over the chunk."""
        now = observation[STATE][:, -1, : self.spec.action_dim]
        action = now if self.action is None else self.action.expand_as(now)
        return ActionChunk(actions=action[:, None].repeat(1, self.spec.horizon, 1), n_network_calls=0)


def control_policy(name: str, task: str, store: Path) -> ConstantPolicy:
    """Build a control of `CONTROLS` for a task, with the features and statistics of its demonstrations."""
    from robot_datasets.store import EpisodeStore

    opened = EpisodeStore.open(store)
    features = opened.features
    spec = PolicySpec(
        observation={n: f for n, f in features.items() if n in (STATE, "observation.environment_state")},
        action=features[ACTION],
        n_obs_steps=2,
        horizon=16,
        n_action_steps=8,
        fps=opened.fps,
    )
    if name == "mean":
        return ConstantPolicy(spec, opened.stats(ACTION).mean)
    return ConstantPolicy(spec, None if HOLD_POSITION[task] else np.zeros(spec.action_dim))
