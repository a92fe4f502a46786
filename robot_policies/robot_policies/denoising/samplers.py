"""Samplers: from noise to an action chunk, as pure functions of a denoiser.

``denoise(x, i)`` returns the data estimate for a noisy chunk x at grid level i. All samplers work on the
unified form x = alpha a + sigma n of `robot_policies.denoising.processes`, so each one runs on a
checkpoint of any process unless it says otherwise; level 0 is the noisiest, the last one is clean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from robot_policies.configuration import ConfigError, Registry
from robot_policies.denoising.guidance import Guidance
from robot_policies.denoising.processes import DiffusionProcess, EdmProcess, Levels, Process
from robot_policies.policy import Generators, draw_normal

Denoise = Callable[[Tensor, int], Tensor]
DrawNoise = Callable[[], Tensor]
StepRule = Callable[[Denoise, Tensor, Levels, DrawNoise], Tensor]
Network = Callable[[Tensor, Tensor], Tensor]


class NoiseSource:
    """Standard normal noise of one shape; see `robot_policies.policy.draw_normal` for the generators."""

    def __init__(self, shape: Sequence[int], generator: Generators, like: Tensor) -> None:
        self.shape, self.generator, self.like = tuple(shape), generator, like

    def __call__(self) -> Tensor:
        """Draw once more."""
        return draw_normal(self.shape, generator=self.generator, like=self.like)


class Sampler(Protocol):
    """What a policy calls: network, process and noise in, chunk and number of network calls out."""

    @property
    def config(self) -> SamplerConfig:
        """The sampler's options."""
        ...

    def __call__(
        self, network: Network, process: Process, noise: NoiseSource, guidance: Guidance | None = None
    ) -> tuple[Tensor, int]:
        """Sample a chunk (B, T, A) in normalised units."""
        ...


def ddim(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise, *, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al., 2021); eta 0 is deterministic, eta 1 is ancestral sampling.

    With eta 0 this is also Euler's method for the probability-flow ODE of EDM (alpha = 1) and of rectified
    flow (alpha + sigma = 1): in both, the straight line through the data estimate and the implied noise.
    """
    alpha, sigma = levels.alpha, levels.sigma
    for i in range(len(sigma) - 1):
        data = denoise(x, i)
        noise = (x - alpha[i] * data) / sigma[i]
        variance = (sigma[i + 1] / sigma[i]) ** 2 * (1 - (alpha[i] / alpha[i + 1]) ** 2)
        std = eta * variance.clamp(min=0).sqrt()
        x = alpha[i + 1] * data + (sigma[i + 1] ** 2 - std**2).clamp(min=0).sqrt() * noise
        if eta > 0 and i + 2 < len(sigma):
            x = x + std * draw_noise()
    return x


def euler_ancestral(
    denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise, *, eta: float = 1.0
) -> Tensor:
    """Ancestral sampling of any process: a step towards the data estimate that renews part of the noise.

    With sigma / alpha in the place of sigma this is Euler's ancestral rule for EDM's process, as used by
    BESO; with eta 1 it draws from the posterior q(x' | x, data estimate), which for a variance-preserving
    process is DDPM. Eta 0 renews nothing and is DDIM.
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


def dpmpp_2m(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022): second-order multistep, deterministic.

    Works in lambda = ln(alpha / sigma); first order on the first step and on the last one, where lambda is
    infinite and the estimate itself is the result.
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
        if previous is not None:
            ratio = (log_snr[i] - log_snr[i - 1]) / h
            slope = data + (data - previous) / (2 * ratio)
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * torch.expm1(-h) * slope
        previous = data
    return x


def heun(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise) -> Tensor:
    """Heun's second-order method on EDM's ODE (Karras et al., 2022, Alg. 1 without churn).

    Two network calls a step but for the last one. For EDM's process: variance-preserving grids reach
    signal-to-noise ratios at which its error explodes.
    """
    sigma = levels.sigma
    for i in range(len(sigma) - 1):
        slope, h = (x - denoise(x, i)) / sigma[i], sigma[i + 1] - sigma[i]
        guess = x + h * slope
        if i + 2 < len(sigma):
            slope = (slope + (guess - denoise(guess, i + 1)) / sigma[i + 1]) / 2
        x = x + h * slope
    return x


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Options every sampler has.

    Attributes:
        steps: Denoising steps; also network calls per chunk, except for Heun (2 steps - 1).
        clip: Bound of the data estimate in normalised units, None for no clipping. Min-max normalised
            actions lie in [-1, 1].
        temperature: Scale of the initial noise; below 1 samples closer to the mode.
    """

    steps: int = 10
    clip: float | None = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampler.steps must be >= 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class DdimConfig(SamplerConfig):
    """DDIM's options; `eta` scales the noise added at each step."""

    eta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EulerAncestralConfig(SamplerConfig):
    """Options of Euler's ancestral rule; `eta` scales the noise renewed at each step, in [0, 1]."""

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"sampler.eta must be between 0 and 1, got {self.eta}")


@dataclass(frozen=True, kw_only=True)
class DdpmConfig(SamplerConfig):
    """DDPM's options."""


@dataclass(frozen=True, kw_only=True)
class HeunConfig(SamplerConfig):
    """Heun's options."""


class StepSampler:
    """A sampler made of one of the step rules above."""

    def __init__(self, rule: StepRule, config: SamplerConfig, *, fits: tuple[type, ...] = ()) -> None:
        self.rule, self.config, self.fits = rule, config, fits

    def __call__(
        self, network: Network, process: Process, noise: NoiseSource, guidance: Guidance | None = None
    ) -> tuple[Tensor, int]:
        """Sample a chunk.

        Args:
            network: Maps network input (B, T, A) and time (B,) to an output (B, T, A).
            process: Process the network was trained on.
            noise: Source of standard normal noise (B, T, A).
            guidance: What the chunk has to agree with; each network call is then differentiated, too.

        Returns:
            The chunk (B, T, A) in normalised units and the number of network calls.

        Raises:
            ConfigError: The sampler does not fit the process.
        """
        check_fit(self.config, process, self.fits)
        levels = Levels(*(level.to(noise.like) for level in process.grid(self.config.steps)))
        calls = 0

        def denoise(x: Tensor, i: int) -> Tensor:
            nonlocal calls
            calls += 1
            here = Levels(levels.alpha[i], levels.sigma[i], levels.time[i])

            def estimate(x: Tensor) -> Tensor:
                output = network(process.network_input(x, here), here.time.expand(x.shape[0]))
                return process.recover(output, x, here)

            data = estimate(x) if guidance is None else guidance(estimate, x, here)
            return clip(data, self.config.clip)

        start = noise() * (process.initial_scale * self.config.temperature)
        return clip(self.rule(denoise, start, levels, noise), self.config.clip), calls


def clip(x: Tensor, bound: float | None) -> Tensor:
    """Clamp to [-bound, bound]; None leaves x as it is."""
    return x if bound is None else x.clamp(-bound, bound)


def check_fit(config: SamplerConfig, process: Process, fits: tuple[type, ...]) -> None:
    """Raise `ConfigError` unless `process` is one of `fits` (empty: any)."""
    if fits and not isinstance(process, fits):
        raise ConfigError(
            f"{type(config).__name__.removesuffix('Config')} sampler works with "
            f"{' or '.join(f.__name__ for f in fits)}, but this policy was trained with "
            f"{type(process).__name__}; use ddim or dpmpp_2m"
        )


samplers: Registry[Sampler] = Registry("sampler")


@samplers.register("ddim", DdimConfig)
def _build_ddim(config: DdimConfig) -> Sampler:
    def rule(denoise: Denoise, x: Tensor, levels: Levels, draw_noise: DrawNoise) -> Tensor:
        return ddim(denoise, x, levels, draw_noise, eta=config.eta)

    return StepSampler(rule, config)


@samplers.register("euler_ancestral", EulerAncestralConfig)
def _build_euler_ancestral(config: EulerAncestralConfig) -> Sampler:
    return StepSampler(partial(euler_ancestral, eta=config.eta), config)


@samplers.register("ddpm", DdpmConfig)
def _build_ddpm(config: DdpmConfig) -> Sampler:
    return StepSampler(ddpm, config, fits=(DiffusionProcess,))


@samplers.register("dpmpp_2m", SamplerConfig)
def _build_dpmpp_2m(config: SamplerConfig) -> Sampler:
    return StepSampler(dpmpp_2m, config)


@samplers.register("heun", HeunConfig)
def _build_heun(config: HeunConfig) -> Sampler:
    return StepSampler(heun, config, fits=(EdmProcess,))
