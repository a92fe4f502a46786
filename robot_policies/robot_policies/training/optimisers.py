"""The optimiser and its learning rate, a pure function of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robot_datasets.errors import UserError
from robot_policies.policy import Policy
from robot_policies.training.config import TrainerConfig


class TrainingDiverged(UserError):
    """The loss or a gradient became NaN or infinite."""


def build_optimiser(policy: Policy, config: TrainerConfig) -> torch.optim.AdamW:
    """AdamW over the policy's parameter groups; a group may bring its own ``lr``.

    The fused kernel reads and writes every parameter once per step instead of several times; on a CPU this is
    what a step of a small policy waits for.
    """
    groups = policy.parameter_groups(config.weight_decay)
    beta1, beta2 = config.betas
    optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(beta1, beta2), fused=True)
    for group in optimiser.param_groups:
        group["peak_lr"] = group["lr"]
    return optimiser


def lr_factor(config: TrainerConfig, *, step: int, cpu_seconds: float) -> float:
    """Learning rate of a step as a share of its peak: linear warm-up, then half a cosine down to 0.

    Args:
        config: Names what the cosine runs over.
        step: Optimiser steps done before this one.
        cpu_seconds: CPU time spent before it [s]; only read if the schedule runs over CPU time.
    """
    if config.schedule_by == "steps":
        progress = step / config.steps
        fraction = config.warmup_fraction
        warmup = config.warmup_steps / config.steps if fraction is None else fraction
        rising = (progress + 1.0 / config.steps) / warmup if warmup > 0 else 1.0
    else:
        progress = cpu_seconds / (60.0 * (config.time_budget_cpu_minutes or math.inf))
        warmup = config.warmup_fraction or 0.0
        rising = progress / warmup if warmup > 0 else (step + 1) / max(1, config.warmup_steps)
    falling = 1.0
    if progress > warmup:
        falling = 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - warmup) / (1.0 - warmup))))
    return min(1.0, rising) * falling


def set_lr(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's learning rate to `factor` of its peak; return that of the first group."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimiser.param_groups[0]["lr"])


def clip_gradients(parameters: Sequence[Tensor], limit: float | None) -> float:
    """Scale gradients down to norm `limit` if they exceed it; return the norm before."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    value = float(norm)
    if limit is not None and value > limit:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return value


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as flat names, ``<parameter number>.<moment>``."""
    state: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    return {
        f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()
    }


def load_optimiser_tensors(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`; the groups themselves come from the configuration."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
