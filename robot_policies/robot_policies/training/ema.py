"""Exponential moving average of a policy's weights; the averaged policy is the one that acts."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from robot_policies.policy import Policy


def ema_decay(n_updates: int, *, power: float, maximum: float) -> float:
    """Decay of the average after `n_updates` updates: ``clip(1 - (1 + n) ** -power, 0, maximum)``.

    It starts at 0, so the first update copies the weights, and grows so that the average always covers a
    constant share of the run.
    """
    return min(max(1.0 - (1.0 + n_updates) ** -power, 0.0), maximum)


class WeightAverage:
    """Keeps a second policy, the average of the first.

    Parameters are averaged; buffers and the parameters of batch normalisation are copied, because averaging
    running statistics with weights of another age makes them fit neither.

    Attributes:
        policy: The averaged policy, in evaluation mode and without gradients.
    """

    def __init__(self, source: Policy, *, power: float, maximum: float) -> None:
        self.policy: Policy = copy.deepcopy(source).requires_grad_(False).eval()
        self._power = power
        self._maximum = maximum
        copied = {
            id(p)
            for m in source.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
            for p in m.parameters()
        }
        pairs = list(zip(source.parameters(), self.policy.parameters(), strict=True))
        self._average_from: list[Tensor] = [
            p.detach() for p, _ in pairs if id(p) not in copied and p.is_floating_point()
        ]
        self._average_to: list[Tensor] = [
            q for p, q in pairs if id(p) not in copied and p.is_floating_point()
        ]
        rest = [(p.detach(), q) for p, q in pairs if id(p) in copied or not p.is_floating_point()]
        rest += list(zip(source.buffers(), self.policy.buffers(), strict=True))
        self._copies: list[tuple[Tensor, Tensor]] = rest

    @torch.no_grad()
    def update(self, n_updates: int) -> None:
        """Take the source's weights in, as update number `n_updates` (from 0)."""
        decay = ema_decay(n_updates, power=self._power, maximum=self._maximum)
        get_ema_multi_avg_fn(decay)(self._average_to, self._average_from, n_updates)
        for source, target in self._copies:
            target.copy_(source)
