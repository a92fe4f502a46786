"""Samplers: from noise to an action chunk, chosen by name on a trained checkpoint.

A sampler is one of the step rules of `robot_policies.denoising.rules`, the levels that it visits, and options that
all of them share. One that does not fit the process a policy was trained with says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from robot_policies.configuration import ConfigError, Registry
from robot_policies.denoising.guidance import Guidance
from robot_policies.denoising.processes import DiffusionProcess, EdmProcess, FlowProcess, Levels, Process
from robot_policies.denoising.rules import StepRule, ancestral, ddpm, dpmpp, heun, two_step
from robot_policies.policy import Generators, draw_normal

Grid = Callable[[Process, int], Levels]
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


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Options every sampler has.

    Attributes:
        steps: Denoising steps; also network calls per chunk, except for Heun (2 steps - 1).
        clip: Bound of the data estimate in normalised units, None for no clipping. Min-max normalised
            actions lie in [-1, 1].
        temperature: Scale of the initial noise; below 1 samples closer to the mode.
        goal_scale: Classifier-free guidance (Ho & Salimans, 2022) of a policy that was trained with and without its
            goal: 0 ignores the goal, 1 follows it, more exaggerates what it changes. Any other value than 0 and 1
            doubles the network calls.
    """

    steps: int = 10
    clip: float | None = 1.0
    temperature: float = 1.0
    goal_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampler.steps must be >= 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class DdimConfig(SamplerConfig):
    """DDIM's options; `eta` scales the noise renewed at each step, in [0, 1]."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"sampler.eta must be between 0 and 1, got {self.eta}")


@dataclass(frozen=True, kw_only=True)
class EulerAncestralConfig(DdimConfig):
    """Options of Euler's ancestral rule: DDIM's, but all noise is renewed unless told otherwise."""

    eta: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DdpmConfig(SamplerConfig):
    """DDPM's options."""


@dataclass(frozen=True, kw_only=True)
class HeunConfig(SamplerConfig):
    """Heun's options."""


@dataclass(frozen=True, kw_only=True)
class TwoStepConfig(SamplerConfig):
    """Options of MIP's two steps.

    Attributes:
        refine_at: Share of the data at the second step's level, alpha / (alpha + sigma), in (0, 1).
    """

    steps: int = 2
    refine_at: float = 0.9

    def __post_init__(self) -> None:
        if self.steps != 2 or not 0 < self.refine_at < 1:
            raise ConfigError(
                f"a two-step sampler needs steps=2 and refine_at in (0, 1), got {self.steps} and {self.refine_at}"
            )


def process_grid(process: Process, steps: int) -> Levels:
    """The process' own grid."""
    return process.grid(steps)


class StepSampler:
    """A sampler made of a step rule.

    Args:
        rule: See `robot_policies.denoising.rules`.
        config: Options.
        fits: Processes it works with; empty for any.
        grid: Levels to visit, the clean one included.
    """

    def __init__(
        self,
        rule: StepRule,
        config: SamplerConfig,
        *,
        fits: tuple[type, ...] = (),
        grid: Grid = process_grid,
    ) -> None:
        self.rule, self.config, self.fits, self.grid = rule, config, fits, grid

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
        levels = Levels(*(level.to(noise.like) for level in self.grid(process, self.config.steps)))
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


@samplers.register("ddpm", DdpmConfig)
def _build_ddpm(config: DdpmConfig) -> Sampler:
    return StepSampler(ddpm, config, fits=(DiffusionProcess,))


@samplers.register("ddim", DdimConfig)
def _build_ddim(config: DdimConfig) -> Sampler:
    return StepSampler(partial(ancestral, eta=config.eta), config)


@samplers.register("euler", SamplerConfig)
def _build_euler(config: SamplerConfig) -> Sampler:
    return StepSampler(ancestral, config)


@samplers.register("euler_ancestral", EulerAncestralConfig)
def _build_euler_ancestral(config: EulerAncestralConfig) -> Sampler:
    return StepSampler(partial(ancestral, eta=config.eta), config)


@samplers.register("heun", HeunConfig)
def _build_heun(config: HeunConfig) -> Sampler:
    return StepSampler(heun, config, fits=(EdmProcess, FlowProcess))


@samplers.register("dpmpp_1", SamplerConfig)
def _build_dpmpp_1(config: SamplerConfig) -> Sampler:
    return StepSampler(partial(dpmpp, order=1), config)


@samplers.register("dpmpp_2m", SamplerConfig)
def _build_dpmpp_2m(config: SamplerConfig) -> Sampler:
    return StepSampler(dpmpp, config)


@samplers.register("dpmpp_1_sde", SamplerConfig)
def _build_dpmpp_1_sde(config: SamplerConfig) -> Sampler:
    return StepSampler(partial(dpmpp, order=1, stochastic=True), config)


@samplers.register("dpmpp_2m_sde", SamplerConfig)
def _build_dpmpp_2m_sde(config: SamplerConfig) -> Sampler:
    return StepSampler(partial(dpmpp, stochastic=True), config)


@samplers.register("two_step", TwoStepConfig)
def _build_two_step(config: TwoStepConfig) -> Sampler:
    def grid(process: Process, steps: int) -> Levels:
        del steps  # two
        levels = process.finest_grid()
        share = levels.alpha / (levels.alpha + levels.sigma)
        chosen = [0, int((share[:-1] - config.refine_at).abs().argmin()), -1]
        return Levels(*(level[chosen] for level in levels))

    return StepSampler(two_step, config, grid=grid)
