"""Noise processes: how data is noised in training and what a network's output means.

Every process is written in one form, x = alpha * a + sigma * n with data a and standard normal n, so that
one sampler serves them all. A process fixes three things: the noise levels (alpha, sigma) and the number
`time` by which the network knows them, the distribution of levels in training, and the parameterisation,
that is the regression target of the network and how the data is recovered from its output F:

    epsilon   F = n                       a = (x - sigma F) / alpha
    sample    F = a                       a = F
    v         F = alpha n - sigma a       a = alpha x - sigma F          (alpha^2 + sigma^2 = 1)
    velocity  F = n - a                   a = x - sigma F                (flow: alpha + sigma = 1)
    EDM       F = (a - c_skip x) / c_out  a = c_skip x + c_out F         (alpha = 1)

`DiffusionProcess` is DDPM's discrete, variance-preserving process (Ho et al., 2020), `EdmProcess` that of
Karras et al. (2022), `FlowProcess` rectified flow (Liu et al., 2023) with openpi's time convention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from robot_policies.configuration import ConfigError, Registry
from robot_policies.denoising.schedules import BetaSchedule, Spacing, betas, sigma_grid

FINE = 1000
"""Levels of the finest grid of a continuous process."""


class Levels(NamedTuple):
    """Noise levels of a sampling grid or of a batch; float tensors of one shape.

    On a grid, index 0 is the noisiest level and the last one is clean (alpha 1, sigma 0, time unused).
    """

    alpha: Tensor
    sigma: Tensor
    time: Tensor


class NoisyBatch(NamedTuple):
    """A training example: network input (B, T, A), time (B,), regression target (B, T, A)."""

    network_input: Tensor
    time: Tensor
    target: Tensor


class Process(Protocol):
    """The interface samplers and policies use; `Levels` given here hold (B, 1, 1) or scalar tensors.

    Sampling starts from standard normal noise times `initial_scale`.
    """

    @property
    def initial_scale(self) -> float:
        """Standard deviation of a chunk at the noisiest level."""
        ...

    def training_batch(self, data: Tensor) -> NoisyBatch:
        """Noise data (B, T, A) at random levels."""
        ...

    def network_input(self, x: Tensor, levels: Levels) -> Tensor:
        """Scale a noisy chunk to what the network expects."""
        ...

    def recover(self, output: Tensor, x: Tensor, levels: Levels) -> Tensor:
        """Estimate the data from the network's output and the (unscaled) noisy chunk."""
        ...

    def grid(self, steps: int) -> Levels:
        """Return steps + 1 levels from the noisiest one down to clean data."""
        ...

    def finest_grid(self) -> Levels:
        """Return a grid that holds every level the network knows, or many of them if they are not discrete."""
        ...


@dataclass(frozen=True, kw_only=True)
class DiffusionProcessConfig:
    """DDPM's process.

    Attributes:
        train_steps: Number of diffusion steps K.
        prediction: Parameterisation of the network.
        beta_schedule: ``squared_cosine`` (Diffusion Policy) or ``linear`` (1e-4 to 0.02; DDPM), which takes about
            a thousand steps to arrive at noise.
        spacing: Which of the K steps a shorter grid uses, as named in diffusers: ``leading`` (Diffusion
            Policy's DDIM; starts below the noisiest step) or ``trailing`` (starts at it).
    """

    train_steps: int = 100
    prediction: Literal["epsilon", "sample", "v"] = "epsilon"
    beta_schedule: BetaSchedule = "squared_cosine"
    spacing: Literal["leading", "trailing"] = "leading"


MOST_DATA_IN_NOISE = 0.2


class DiffusionProcess:
    """Discrete variance-preserving diffusion with K levels; `time` is the step k in 0..K-1."""

    def __init__(self, config: DiffusionProcessConfig) -> None:
        if config.train_steps < 1:
            raise ConfigError(f"policy.process.train_steps must be >= 1, got {config.train_steps}")
        self.config = config
        alpha_bar = torch.cumprod(1.0 - betas(config.beta_schedule, config.train_steps), dim=0)
        left = float(alpha_bar[-1].sqrt())
        if left > MOST_DATA_IN_NOISE:
            raise ConfigError(
                f"policy.process: {config.train_steps} steps of a {config.beta_schedule} schedule leave {left:.2f} of "
                f"the data in what sampling takes for noise; use more train_steps (DDPM: 1000) or squared_cosine"
            )
        self.alphas, self.sigmas = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    @property
    def initial_scale(self) -> float:
        """1: noise and normalised data have about unit variance."""
        return 1.0

    def training_batch(self, data: Tensor) -> NoisyBatch:
        """Draw k uniformly per sample and return the noised data and target."""
        k = torch.randint(self.config.train_steps, (data.shape[0],), device=data.device)
        alpha = self.alphas.to(data)[k][:, None, None]
        sigma = self.sigmas.to(data)[k][:, None, None]
        noise = torch.randn_like(data)
        x = alpha * data + sigma * noise
        target = {"epsilon": noise, "sample": data}.get(self.config.prediction)
        if target is None:
            target = alpha * noise - sigma * data
        return NoisyBatch(x, k.to(data.dtype), target)

    def network_input(self, x: Tensor, levels: Levels) -> Tensor:
        """The noisy chunk itself."""
        return x

    def recover(self, output: Tensor, x: Tensor, levels: Levels) -> Tensor:
        """Estimate the data; see the module docstring."""
        if self.config.prediction == "epsilon":
            return (x - levels.sigma * output) / levels.alpha
        if self.config.prediction == "sample":
            return output
        return levels.alpha * x - levels.sigma * output

    def grid_steps(self, steps: int) -> Tensor:
        """Diffusion steps k of a grid, descending; (steps,) int64."""
        total = self.config.train_steps
        if not 1 <= steps <= total:
            raise ConfigError(f"sampler.steps must be between 1 and train_steps={total}, got {steps}")
        if self.config.spacing == "leading":
            return (torch.arange(steps) * (total // steps)).flip(0)
        return torch.arange(total, 0, -total / steps, dtype=torch.float64).round().long()[:steps] - 1

    def grid(self, steps: int) -> Levels:
        """Levels of `grid_steps`, then clean data."""
        k = self.grid_steps(steps)
        zero = torch.zeros(1)
        return Levels(
            torch.cat([self.alphas[k], zero + 1]),
            torch.cat([self.sigmas[k], zero]),
            torch.cat([k.float(), zero]),
        )

    def finest_grid(self) -> Levels:
        """All K levels."""
        return self.grid(self.config.train_steps)


@dataclass(frozen=True, kw_only=True)
class EdmProcessConfig:
    """Karras et al.'s process.

    Attributes:
        sigma_data: Standard deviation of the normalised data.
        sigma_min: Smallest noise level of the sampling grid.
        sigma_max: Largest noise level of the sampling grid.
        spacing: Levels of the sampling grid; see `robot_policies.denoising.schedules`.
        rho: Curvature of Karras' grid; larger spends more steps at small noise.
        training_levels: Distribution of ln(sigma) in training: ``log_normal`` (Karras et al.), or
            ``log_logistic``, truncated to [sigma_min, sigma_max] (BESO; Reuss et al., 2023).
        sigma_median: Median of that distribution, before truncation.
        sigma_log_std: Standard deviation of ln(sigma), for ``log_normal``.
        sigma_log_scale: Scale of the logistic distribution of ln(sigma), for ``log_logistic``.
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.02
    sigma_max: float = 20.0
    rho: float = 5.0
    sigma_median: float = 0.5
    sigma_log_std: float = 1.08
    spacing: Spacing = "karras"
    training_levels: Literal["log_normal", "log_logistic"] = "log_normal"
    sigma_log_scale: float = 0.5


class EdmProcess:
    """Variance-exploding diffusion with EDM preconditioning; `time` is 10 ln(sigma)."""

    def __init__(self, config: EdmProcessConfig) -> None:
        if not 0 < config.sigma_min < config.sigma_max:
            raise ConfigError(
                f"policy.process needs 0 < sigma_min < sigma_max, got {config.sigma_min} and {config.sigma_max}"
            )
        if config.sigma_log_scale <= 0:
            raise ConfigError(f"policy.process.sigma_log_scale must be > 0, got {config.sigma_log_scale}")
        self.config = config

    def _draw_log_sigma(self, data: Tensor) -> Tensor:
        """One ln(sigma) per sample of `data`, (B,)."""
        c, median = self.config, math.log(self.config.sigma_median)
        if c.training_levels == "log_normal":
            normal = torch.randn(data.shape[0], device=data.device, dtype=data.dtype)
            return median + c.sigma_log_std * normal
        # Inverse of the logistic distribution function, over the part of it between the bounds.
        low, high = (
            1 / (1 + math.exp(-(math.log(bound) - median) / c.sigma_log_scale))
            for bound in (c.sigma_min, c.sigma_max)
        )
        u = torch.rand(data.shape[0], device=data.device, dtype=torch.float64)
        return (median + c.sigma_log_scale * torch.logit(low + (high - low) * u)).to(data.dtype)

    def _skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        data_var = self.config.sigma_data**2
        total = sigma**2 + data_var
        return data_var / total, sigma * self.config.sigma_data / total.sqrt()

    @property
    def initial_scale(self) -> float:
        """sigma_max."""
        return self.config.sigma_max

    def training_batch(self, data: Tensor) -> NoisyBatch:
        """Draw sigma per sample; the target has unit weight, EDM's lambda = 1 / c_out^2."""
        log_sigma = self._draw_log_sigma(data)
        sigma = log_sigma.exp()[:, None, None]
        x = data + sigma * torch.randn_like(data)
        c_skip, c_out = self._skip_out(sigma)
        levels = Levels(torch.ones_like(sigma), sigma, 10 * log_sigma)
        return NoisyBatch(self.network_input(x, levels), levels.time, (data - c_skip * x) / c_out)

    def network_input(self, x: Tensor, levels: Levels) -> Tensor:
        """c_in * x, of unit variance at every level when the data has standard deviation sigma_data."""
        return x / (levels.sigma**2 + self.config.sigma_data**2).sqrt()

    def recover(self, output: Tensor, x: Tensor, levels: Levels) -> Tensor:
        """c_skip x + c_out F."""
        c_skip, c_out = self._skip_out(levels.sigma)
        return c_skip * x + c_out * output

    def grid(self, steps: int) -> Levels:
        """Levels from sigma_max to sigma_min, then 0."""
        if steps < 1:
            raise ConfigError(f"sampler.steps must be >= 1, got {steps}")
        c, zero = self.config, torch.zeros(1)
        sigma = sigma_grid(c.spacing, steps, sigma_min=c.sigma_min, sigma_max=c.sigma_max, rho=c.rho)
        sigmas = torch.cat([sigma, zero])
        return Levels(torch.ones_like(sigmas), sigmas, torch.cat([10 * sigma.log(), zero]))

    def finest_grid(self) -> Levels:
        """A thousand levels."""
        return self.grid(FINE)


@dataclass(frozen=True, kw_only=True)
class FlowProcessConfig:
    """Rectified flow from noise (t = 1) to data (t = 0).

    Attributes:
        time_distribution: ``uniform``, or ``beta``: t = 0.999 Beta(1.5, 1) + 0.001 as in pi-0
            (Black et al., 2024), which favours noisy levels.
        prediction: Parameterisation of the network: ``velocity``, or ``sample``, which is easier to learn for a
            small network (Li and He, 2025, arXiv 2511.13720).
    """

    time_distribution: Literal["uniform", "beta"] = "uniform"
    prediction: Literal["velocity", "sample"] = "velocity"


class FlowProcess:
    """Straight interpolation x = (1 - t) a + t n; `time` is 100 t."""

    def __init__(self, config: FlowProcessConfig) -> None:
        self.config = config

    @property
    def initial_scale(self) -> float:
        """1."""
        return 1.0

    def training_batch(self, data: Tensor) -> NoisyBatch:
        """Draw t per sample and return the noised data and target."""
        t = torch.rand(data.shape[0], device=data.device, dtype=data.dtype)
        if self.config.time_distribution == "beta":
            # Beta(1.5, 1) has CDF t^1.5.
            t = 0.999 * t ** (1 / 1.5) + 0.001
        noise = torch.randn_like(data)
        sigma = t[:, None, None]
        target = data if self.config.prediction == "sample" else noise - data
        return NoisyBatch((1 - sigma) * data + sigma * noise, 100 * t, target)

    def network_input(self, x: Tensor, levels: Levels) -> Tensor:
        """The noisy chunk itself."""
        return x

    def recover(self, output: Tensor, x: Tensor, levels: Levels) -> Tensor:
        """Estimate the data; see the module docstring."""
        return output if self.config.prediction == "sample" else x - levels.sigma * output

    def grid(self, steps: int) -> Levels:
        """Evenly spaced t from 1 to 0."""
        if steps < 1:
            raise ConfigError(f"sampler.steps must be >= 1, got {steps}")
        t = torch.linspace(1, 0, steps + 1)
        return Levels(1 - t, t, 100 * t)

    def finest_grid(self) -> Levels:
        """A thousand levels."""
        return self.grid(FINE)


processes: Registry[Process] = Registry("noise process")
processes.register("diffusion", DiffusionProcessConfig)(DiffusionProcess)
processes.register("edm", EdmProcessConfig)(EdmProcess)
processes.register("flow", FlowProcessConfig)(FlowProcess)
