"""Everything that changes while training, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from robot_policies.policy import Policy
from robot_policies.training.config import TrainerConfig
from robot_policies.training.ema import WeightAverage
from robot_policies.training.optimisers import build_optimiser, load_optimiser_tensors, optimiser_tensors


@dataclass
class TrainState:
    """State of a run after `step` optimiser steps.

    The learning rate, the order of samples and the noise are pure functions of these numbers and the seed, so
    no scheduler, sampler or generator has a state of its own.

    Attributes:
        policy: Learns.
        average: Its averaged weights, which act.
        optimiser: Its moments.
        step: Optimiser steps done.
        cpu_seconds: CPU time spent on them, without validation and checkpoints [s].
        wall_seconds: Wall time of the same [s].
        sums: Sums of logged values since the last line of metrics.
        n_summed: How many values each sum holds.
        ranking: Validation errors of the kept checkpoints, best first: (error, step).
    """

    policy: Policy
    average: WeightAverage
    optimiser: torch.optim.Optimizer
    step: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    n_summed: int = 0
    ranking: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def create(cls, policy: Policy, config: TrainerConfig) -> TrainState:
        """State at step 0 of a policy that is on its device already."""
        average = WeightAverage(policy, power=config.ema_power, maximum=config.ema_max)
        return cls(policy=policy, average=average, optimiser=build_optimiser(policy, config))

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """Parameters that learn."""
        return [p for p in self.policy.parameters() if p.requires_grad]

    def add(self, values: dict[str, float]) -> None:
        """Add a step's values to the running sums."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.n_summed += 1

    def take_means(self) -> dict[str, float]:
        """Means since the last call; the sums start again."""
        means = {name: total / self.n_summed for name, total in self.sums.items()}
        self.sums, self.n_summed = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Tensors under ``policy.*``, ``average.*`` and ``optimiser.*``, and JSON-ready numbers."""
        return {
            **{f"policy.{k}": v for k, v in self.policy.state_dict().items()},
            **{f"average.{k}": v for k, v in self.average.policy.state_dict().items()},
            **{f"optimiser.{k}": v for k, v in optimiser_tensors(self.optimiser).items()},
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "wall_seconds": self.wall_seconds,
            "sums": dict(self.sums),
            "n_summed": self.n_summed,
            "ranking": [list(entry) for entry in self.ranking],
        }

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}

        self.policy.load_state_dict(part("policy."))
        self.average.policy.load_state_dict(part("average."))
        load_optimiser_tensors(self.optimiser, part("optimiser."))
        self.step = int(values["step"])
        self.cpu_seconds = float(values["cpu_seconds"])
        self.wall_seconds = float(values["wall_seconds"])
        self.sums = {k: float(v) for k, v in values["sums"].items()}
        self.n_summed = int(values["n_summed"])
        self.ranking = [(float(error), int(step)) for error, step in values["ranking"]]
