"""Step rules: from noise down a grid of levels to data, as pure functions of a denoiser.

``denoise(x, i)`` returns the data estimate for a noisy chunk x at grid level i. All rules work on the unified
form x = alpha a + sigma n of `robot_policies.denoising.processes`, so each one runs on a checkpoint of any
process unless it says otherwise; level 0 is the noisiest, the last one is clean (alpha 1, sigma 0).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robot_policies.denoising.processes import Levels

Denoise = Callable[[Tensor, int], Tensor]
DrawNoise = Callable[[], Tensor]
StepRule = Callable[[Denoise, Tensor, Levels, DrawNoise], Tensor]


def ancestral(
    denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise, *, eta: float = 0.0
) -> Tensor:
    """A step towards the data estimate that renews part of the noise: DDIM, and Euler's method.

    With eta 0 nothing is renewed. This is DDIM (Song et al., 2021), which is Euler's method for the
    probability-flow ODE in x / alpha over sigma / alpha, thus of EDM (alpha = 1), and of rectified flow
    (alpha + sigma = 1): always the straight line through the data estimate and the implied noise.

    With eta 1 it draws from the posterior q(x' | x, data estimate) of any process: Euler's ancestral rule, as
    used by BESO; DDPM on a variance-preserving process, where eta is DDIM's.
    """
    alpha, sigma = levels.alpha, levels.sigma
    for i in range(len(sigma) - 1):
        data = denoise(x, i)
        noise = (x - alpha[i] * data) / sigma[i]
        kept = sigma[i + 1] * alpha[i] / (alpha[i + 1] * sigma[i])
        std = eta * sigma[i + 1] * (1 - kept**2).clamp(min=0).sqrt()
        x = alpha[i + 1] * data + (sigma[i + 1] ** 2 - std**2).clamp(min=0).sqrt() * noise
        if eta > 0 and i + 2 < len(sigma):
            x = x + std * draw_noise()
    return x


def ddpm(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise) -> Tensor:
    """DDPM's ancestral sampling (Ho et al., 2020): a draw from the posterior q(x' | x, data estimate).

    Variance is the posterior's ("fixed small"). For variance-preserving processes only.
    """
    alpha, sigma = levels.alpha, levels.sigma
    for i in range(len(sigma) - 1):
        data = denoise(x, i)
        step = (alpha[i] / alpha[i + 1]) ** 2  # product of the alphas that this step undoes
        beta = 1 - step
        mean = alpha[i + 1] * beta / sigma[i] ** 2 * data + step.sqrt() * (sigma[i + 1] / sigma[i]) ** 2 * x
        x = mean
        if i + 2 < len(sigma):
            x = x + (sigma[i + 1] / sigma[i] * beta.clamp(min=0).sqrt()) * draw_noise()
    return x


def dpmpp(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    draw_noise: DrawNoise,
    *,
    order: int = 2,
    stochastic: bool = False,
) -> Tensor:
    """DPM-Solver++ (Lu et al., 2022), multistep, of first or second order, for the ODE or the SDE.

    Works in lambda = ln(alpha / sigma). The second order extrapolates the data estimate from the last two
    (the midpoint variant, "2M"); it is of first order on the first step, and on the last one, where lambda is
    infinite, the estimate itself is the result. The SDE renews all the noise that a step of length h leaves
    no trace of, a share 1 - exp(-2 h) of its variance.
    """
    alpha, sigma = levels.alpha, levels.sigma
    log_snr = alpha.log() - sigma.log()
    previous: Tensor | None = None
    for i in range(len(sigma) - 1):
        data = denoise(x, i)
        if i + 2 == len(sigma):
            return data
        h = log_snr[i + 1] - log_snr[i]
        slope = data
        if order == 2 and previous is not None:
            ratio = (log_snr[i] - log_snr[i - 1]) / h
            slope = data + (data - previous) / (2 * ratio)
        kept = sigma[i + 1] / sigma[i]
        if stochastic:
            renewed = -torch.expm1(-2 * h)
            x = kept * torch.exp(-h) * x + alpha[i + 1] * renewed * slope
            x = x + sigma[i + 1] * renewed.sqrt() * draw_noise()
        else:
            x = kept * x - alpha[i + 1] * torch.expm1(-h) * slope
        previous = data
    return x


def heun(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise) -> Tensor:
    """Heun's second-order method on the ODE dx/dsigma = (x - data) / sigma (Karras et al., 2022, Alg. 1).

    Two network calls a step but for the last one; without churn. This is the ODE of EDM's process and of
    rectified flow. On variance-preserving grids it would have to run over sigma / alpha, whose first steps are
    so long that its error explodes.
    """
    sigma = levels.sigma
    for i in range(len(sigma) - 1):
        slope, h = (x - denoise(x, i)) / sigma[i], sigma[i + 1] - sigma[i]
        guess = x + h * slope
        if i + 2 < len(sigma):
            slope = (slope + (guess - denoise(guess, i + 1)) / sigma[i + 1]) / 2
        x = x + h * slope
    return x


def two_step(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise) -> Tensor:
    """MIP's inference (Pan et al., 2026): an estimate from no noise at all, shrunk and refined once.

    Level 0 is the noisiest, level 1 the one to refine at. Deterministic: it answers with one chunk, near the mean
    of those that fit the observation, where the others draw a sample.
    """
    data = denoise(torch.zeros_like(x), 0)
    return denoise(levels.alpha[1] * data, 1)
