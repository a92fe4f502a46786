"""Noise schedules: how fast diffusion steps destroy the data, and which noise levels a sampler visits.

Schedules by betas belong to DDPM's discrete process, grids of sigma to EDM's continuous one. With a ramp r from
0 to 1 over the grid's points, sigma runs from sigma_max to sigma_min:

    karras        sigma^(1/rho) linear in r                              Karras et al. (2022); rho 5 to 7
    exponential   ln(sigma) linear in r                                  the variance-exploding SDE's
    linear        sigma linear in r
    vp            sigma^2 = exp(b t^2 / 2 + c t) - 1, t from 1 to 1e-3   the variance-preserving SDE's
    cosine        atan(sigma) linear in r                                Nichol & Dhariwal (2021), in continuous time

`vp` takes b and c from the two ends, as Karras et al. do (Table 1), so that every grid covers the same range.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

BetaSchedule = Literal["squared_cosine", "linear"]
Spacing = Literal["karras", "exponential", "linear", "vp", "cosine"]

VP_LAST_TIME = 1e-3


def betas(schedule: BetaSchedule, steps: int) -> Tensor:
    """Variance that each of DDPM's steps adds, (steps,) float32."""
    if schedule == "squared_cosine":
        return squared_cosine_betas(steps)
    return torch.linspace(1e-4, 0.02, steps, device="cpu")


def squared_cosine_betas(steps: int, max_beta: float = 0.999) -> Tensor:
    """Cosine schedule of Nichol & Dhariwal (2021), diffusers' ``squaredcos_cap_v2``; (steps,) float32."""

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    values = [min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), max_beta) for i in range(steps)]
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def sigma_grid(spacing: Spacing, steps: int, *, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Falling noise levels from `sigma_max` to `sigma_min`, (steps,) float32; one step is at `sigma_max`.

    Args:
        spacing: One of the grids in the module docstring.
        steps: Number of levels, >= 1.
        sigma_min: Smallest level.
        sigma_max: Largest level.
        rho: Curvature of `karras`.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1).double()
    if spacing == "exponential":
        sigma = sigma_max * (sigma_min / sigma_max) ** ramp
    elif spacing == "cosine":
        first, last = math.atan(sigma_max), math.atan(sigma_min)
        sigma = torch.tan(first + ramp * (last - first))
    elif spacing == "vp":
        # The exponent is ln(1 + sigma^2) at both ends of time.
        first, last = math.log1p(sigma_max**2), math.log1p(sigma_min**2)
        b = 2 * (last / VP_LAST_TIME - first) / (VP_LAST_TIME - 1)
        time = 1 + ramp * (VP_LAST_TIME - 1)
        sigma = torch.expm1(b * time**2 / 2 + (first - b / 2) * time).sqrt()
    else:
        power = rho if spacing == "karras" else 1.0
        first, last = sigma_max ** (1 / power), sigma_min ** (1 / power)
        sigma = (first + ramp * (last - first)) ** power
    return sigma.float()
