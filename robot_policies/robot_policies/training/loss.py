"""The loss as a module, so that autocast, torch.compile and DistributedDataParallel wrap one thing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robot_policies.policy import Policy
from robot_policies.training.config import TrainerConfig
from robot_policies.training.distributed import World
from robot_policies.training.precision import use_bf16


class LossModule(nn.Module):
    """``forward(batch) -> (loss, terms)`` of a policy, in the configured precision."""

    def __init__(self, policy: Policy, *, device_type: str, bf16: bool) -> None:
        super().__init__()
        self.policy = policy
        self._device_type = device_type
        self._bf16 = bf16

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms."""
        with torch.autocast(self._device_type, dtype=torch.bfloat16, enabled=self._bf16):
            output = self.policy.compute_loss(batch)
        return output.loss, output.terms


def build_loss(policy: Policy, config: TrainerConfig, world: World) -> nn.Module:
    """Wrap `policy` for training as configured."""
    bf16 = use_bf16(config.precision, world.device)
    module: nn.Module = LossModule(policy, device_type=world.device.type, bf16=bf16)
    if config.compile:
        module.compile()
    if world.size > 1:
        module = DistributedDataParallel(module)
    return module


def without_sync(module: nn.Module, skip: bool) -> AbstractContextManager[Any]:
    """Hold gradients back from the other processes, for all but the last micro-batch of a step."""
    return module.no_sync() if skip and isinstance(module, DistributedDataParallel) else nullcontext()
