"""Sampling through Hugging Face diffusers' schedulers, for checkpoints of DDPM's process.

The step rules in `robot_policies.denoising.samplers` are the default: they serve every process and cost
less per step. These are the reference they are tested against, and a door to diffusers' other options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.denoising.guidance import Guidance
from robot_policies.denoising.processes import DiffusionProcess, Process
from robot_policies.denoising.samplers import (
    Network,
    NoiseSource,
    Sampler,
    SamplerConfig,
    check_fit,
    clip,
    samplers,
)

_PREDICTION = {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}


@dataclass(frozen=True, kw_only=True)
class DiffusersConfig(SamplerConfig):
    """Options of a diffusers scheduler.

    Attributes:
        scheduler: ``ddpm``, ``ddim``, or DPM-Solver++ as in our samplers' names. The last ones have no clipping in
            diffusers; `clip` then bounds the result only.
    """

    scheduler: Literal["ddpm", "ddim", "dpmpp_1", "dpmpp_2m", "dpmpp_1_sde", "dpmpp_2m_sde"] = "ddim"


def make_scheduler(config: DiffusersConfig, process: DiffusionProcess) -> Any:
    """Build the diffusers scheduler that samples from `process`."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    p = process.config
    common = {
        "num_train_timesteps": p.train_steps,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "squaredcos_cap_v2" if p.beta_schedule == "squared_cosine" else "linear",
        "prediction_type": _PREDICTION[p.prediction],
        "timestep_spacing": p.spacing,
    }
    clipping = {"clip_sample": config.clip is not None, "clip_sample_range": config.clip or 1.0}
    if config.scheduler == "ddpm":
        return DDPMScheduler(**common, **clipping, variance_type="fixed_small")
    if config.scheduler == "ddim":
        return DDIMScheduler(**common, **clipping, set_alpha_to_one=True, steps_offset=0)
    return DPMSolverMultistepScheduler(
        **common,
        algorithm_type="sde-dpmsolver++" if config.scheduler.endswith("_sde") else "dpmsolver++",
        solver_order=1 if config.scheduler.startswith("dpmpp_1") else 2,
        final_sigmas_type="zero",
        lower_order_final=True,
    )


class DiffusersSampler:
    """A diffusers scheduler behind the sampler interface."""

    def __init__(self, config: DiffusersConfig) -> None:
        self.config = config

    def __call__(
        self, network: Network, process: Process, noise: NoiseSource, guidance: Guidance | None = None
    ) -> tuple[Tensor, int]:
        """Sample a chunk; see `robot_policies.denoising.samplers.StepSampler`."""
        if guidance is not None:
            raise ConfigError("diffusers' schedulers cannot be guided; use sampler=ddim or sampler=dpmpp_2m")
        check_fit(self.config, process, (DiffusionProcess,))
        assert isinstance(process, DiffusionProcess)
        process.grid_steps(self.config.steps)  # validates the number of steps
        scheduler = make_scheduler(self.config, process)
        scheduler.set_timesteps(self.config.steps)
        extra: dict[str, Any] = {"generator": noise.generator}
        if self.config.scheduler == "ddim":
            # The direction towards noise is taken from the clipped estimate, as in our own DDIM.
            extra = {"use_clipped_model_output": True}
        x = noise() * self.config.temperature
        for k in scheduler.timesteps:
            output = network(x, k.to(x).expand(x.shape[0]))
            x = scheduler.step(output, k, x, **extra).prev_sample
        return clip(x, self.config.clip), len(scheduler.timesteps)


@samplers.register("diffusers", DiffusersConfig)
def _build_diffusers(config: DiffusersConfig) -> Sampler:
    return DiffusersSampler(config)
