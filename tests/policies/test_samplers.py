"""Samplers on every process: against Gaussian data in closed form, and against diffusers' schedulers.

For Gaussian data N(MEAN, STD^2) the best denoiser is affine in the noisy chunk, and so is every step rule. A
sampler is then an affine map of its noise draws, whose coefficients are read off exactly: one row of a batch
gets no noise at all, and each other row a unit impulse in one draw. No sampling error is left.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.denoising.processes import Levels, Process, processes
from robot_policies.denoising.rules import heun
from robot_policies.denoising.samplers import NoiseSource, samplers

VP = {"type": "diffusion", "train_steps": 1000, "spacing": "trailing"}
EDM = {"type": "edm", "sigma_max": 80.0, "sigma_min": 0.002}
BESO = {"type": "edm", "sigma_max": 1.0, "sigma_min": 0.005}
PROCESSES: dict[str, dict[str, Any]] = {
    "epsilon": {**VP, "prediction": "epsilon"},
    "sample": {**VP, "prediction": "sample"},
    "v": {**VP, "prediction": "v"},
    "linear betas": {**VP, "beta_schedule": "linear"},
    "karras": EDM,
    "exponential": {**BESO, "spacing": "exponential"},
    "linear": {**BESO, "spacing": "linear"},
    "vp": {**BESO, "spacing": "vp"},
    "cosine": {**BESO, "spacing": "cosine"},
    "flow": {"type": "flow"},
    "flow of samples": {"type": "flow", "prediction": "sample"},
}
DIFFUSION = ("epsilon", "sample", "v", "linear betas")
DETERMINISTIC: dict[str, dict[str, Any]] = {
    "ddim": {"type": "ddim"},
    "euler": {"type": "euler"},
    "ancestral eta 0": {"type": "euler_ancestral", "eta": 0.0},
    "dpmpp_1": {"type": "dpmpp_1"},
    "dpmpp_2m": {"type": "dpmpp_2m"},
    "heun": {"type": "heun"},
}
STOCHASTIC: dict[str, dict[str, Any]] = {
    "ddpm": {"type": "ddpm"},
    "ddim eta 1": {"type": "ddim", "eta": 1.0},
    "euler_ancestral": {"type": "euler_ancestral"},
    "dpmpp_1_sde": {"type": "dpmpp_1_sde"},
    "dpmpp_2m_sde": {"type": "dpmpp_2m_sde"},
}
MEAN, STD = 0.3, 0.4


def fits(process: str, sampler: str) -> bool:
    """The pairs that are promised to work."""
    return not (sampler == "ddpm" and process not in DIFFUSION) and not (
        sampler == "heun" and process in DIFFUSION
    )


class Impulses(NoiseSource):
    """Draw number c is 1 in row c + 1 and 0 elsewhere."""

    def __init__(self, n: int) -> None:
        super().__init__((n, 1, 1), None, torch.zeros(1, dtype=torch.float64))
        self.drawn = 0

    def __call__(self) -> Tensor:
        noise = torch.zeros(self.shape, dtype=torch.float64)
        self.drawn += 1
        noise[self.drawn] = 1.0
        return noise


def make_process(name: str) -> Process:
    return processes.build(PROCESSES[name], where="process")


def levels_at(process: Process, time: Tensor, grid: Levels) -> Levels:
    """The noise levels that a network is told about as `time`; `grid` is the process's finest."""
    kind = type(process).__name__
    if kind == "EdmProcess":
        return Levels(torch.ones_like(time), (time / 10).exp(), time)
    if kind == "FlowProcess":
        return Levels(1 - time / 100, time / 100, time)
    here = int((grid.time[:-1] - float(time)).abs().argmin())
    return Levels(grid.alpha[here].to(time), grid.sigma[here].to(time), time)


def exact_network(process: Process):
    """The best possible network for the Gaussian data: inverts `recover` at the posterior mean."""
    grid = process.finest_grid()

    def network(inputs: Tensor, time: Tensor) -> Tensor:
        levels = levels_at(process, time[0], grid)
        one, zero = torch.ones_like(inputs), torch.zeros_like(inputs)
        x = inputs / process.network_input(one, levels)
        gain = levels.alpha * STD**2 / (levels.alpha**2 * STD**2 + levels.sigma**2)
        data = MEAN + gain * (x - levels.alpha * MEAN)
        # recover() is affine in the output: solve it for the output that yields `data`.
        at_zero = process.recover(zero, x, levels)
        return (data - at_zero) / (process.recover(one, x, levels) - at_zero)

    return network


def moments(name: str, config: dict[str, Any], steps: int) -> tuple[float, float, int]:
    """Exact mean and standard deviation of the samples, and the number of network calls."""
    process = make_process(name)
    sampler = samplers.build({"clip": None, "steps": steps, **config}, where="sampler")
    chunk, calls = sampler(exact_network(process), process, Impulses(steps + 2))
    chunk = chunk.flatten()
    return float(chunk[0]), float((chunk[1:] - chunk[0]).square().sum().sqrt()), calls


def ode_moments(name: str, steps: int) -> tuple[float, float]:
    """Where the probability-flow ODE takes the start, whose mean is 0: it preserves the standardised value."""
    process = make_process(name)
    grid = process.grid(steps)
    alpha, sigma = float(grid.alpha[0]), float(grid.sigma[0])
    spread = (alpha**2 * STD**2 + sigma**2) ** 0.5
    return MEAN - STD * alpha * MEAN / spread, STD * process.initial_scale / spread


def ode_error(name: str, config: dict[str, Any], steps: int) -> float:
    mean, std, _ = moments(name, config, steps)
    expected_mean, expected_std = ode_moments(name, steps)
    return abs(mean - expected_mean) + abs(std - expected_std)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_deterministic_samplers_solve_the_ode_of_gaussian_data(process: str, sampler: str) -> None:
    """With the exact denoiser, a fine grid ends where the closed form of the ODE does."""
    if not fits(process, sampler):
        with pytest.raises(ConfigError, match="use ddim"):
            moments(process, DETERMINISTIC[sampler], 2)
        return
    steps, tolerance = (100, 2e-3) if sampler in ("dpmpp_2m", "heun") else (250, 8e-3)
    assert ode_error(process, DETERMINISTIC[sampler], steps) < tolerance


@pytest.mark.parametrize("process", ["epsilon", "sample", "v", "linear betas", "karras", "flow"])
@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_stochastic_samplers_draw_from_the_distribution_of_gaussian_data(process: str, sampler: str) -> None:
    """With the exact denoiser, mean and standard deviation of the samples are the data's."""
    if not fits(process, sampler):
        with pytest.raises(ConfigError, match="use ddim"):
            moments(process, STOCHASTIC[sampler], 2)
        return
    # A rule of second order needs fewer steps for the same tolerance.
    steps = 200 if sampler == "dpmpp_2m_sde" else 500
    mean, std, calls = moments(process, STOCHASTIC[sampler], steps)
    assert calls == steps
    assert mean == pytest.approx(MEAN, abs=2e-3)
    assert std == pytest.approx(STD, abs=1e-2)


@pytest.mark.parametrize("process", PROCESSES)
def test_two_step_refines_the_estimate_of_no_noise(process: str) -> None:
    """MIP's sampler is deterministic, takes two calls, and answers with the mean if the process starts at noise."""
    mean, std, calls = moments(process, {"type": "two_step"}, 2)
    alone = make_process(process).grid(1)
    # From zeros the first estimate misses the mean by this share, the second by a share of that.
    missed = float(alone.alpha[0] ** 2 * STD**2 / (alone.alpha[0] ** 2 * STD**2 + alone.sigma[0] ** 2))
    refined = 0.81 * STD**2 / (0.81 * STD**2 + 0.01)
    assert mean == pytest.approx(MEAN * (1 - missed * refined), abs=3e-3)
    assert std == 0
    assert calls == 2


@pytest.mark.parametrize(
    ("process", "sampler"),
    [(p, "dpmpp_2m") for p in ("epsilon", "sample", "v", "karras", "exponential", "flow")]
    + [(p, "heun") for p in PROCESSES if fits(p, "heun")],
)
def test_second_order_samplers_beat_first_order_on_the_same_grid(process: str, sampler: str) -> None:
    """At 40 steps their error is at most a quarter of Euler's."""
    assert ode_error(process, {"type": sampler}, 40) < ode_error(process, {"type": "euler"}, 40) / 4


def test_heun_calls_the_network_twice_a_step_but_for_the_last() -> None:
    """The last step is Euler's, because the level after it is clean."""
    assert moments("karras", {"type": "heun"}, 20)[2] == 39


@pytest.mark.parametrize("process", ["v", "karras", "flow"])
def test_samplers_that_are_one_in_theory_are_one(process: str) -> None:
    """DDIM is Euler's method, first-order DPM-Solver++, and ancestral sampling that renews nothing."""
    expected = moments(process, {"type": "ddim"}, 20)
    for other in ("euler", "dpmpp_1", "ancestral eta 0"):
        assert moments(process, DETERMINISTIC[other], 20) == pytest.approx(expected, rel=1e-5)


def test_ancestral_samplers_of_the_diffusion_process_are_one() -> None:
    """DDIM with eta 1, Euler's ancestral rule and the first-order SDE solver are DDPM there."""
    expected = moments("v", {"type": "ddpm"}, 50)
    for other in ("ddim eta 1", "euler_ancestral", "dpmpp_1_sde"):
        assert moments("v", STOCHASTIC[other], 50) == pytest.approx(expected, rel=1e-4)


def mixing_network(seed: int = 1):
    """A network without any meaning, but with an opinion on everything it is given."""
    mix = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)) * 0.3
    return lambda x, time: torch.tanh(x @ mix + 0.01 * time[:, None, None])


def own_chunk(process: Process, config: dict[str, Any], seed: int = 3) -> Tensor:
    noise = NoiseSource((5, 4, 3), torch.Generator().manual_seed(seed), torch.zeros(1))
    return samplers.build({"clip": None, **config}, where="sampler")(mixing_network(), process, noise)[0]


def scheduler_chunk(scheduler: Any, start: Tensor, network: Any, seed: int = 3) -> Tensor:
    """Run a diffusers scheduler from `start`; its noise comes from where ours does."""
    generator = torch.Generator().manual_seed(seed)
    torch.randn(start.shape, generator=generator)  # the start's
    x = start
    takes_noise = "generator" in scheduler.step.__code__.co_varnames
    for t in scheduler.timesteps:
        inputs = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        extra = {"generator": generator} if takes_noise else {}
        x = scheduler.step(network(inputs, t), t, x, **extra).prev_sample
    return x


def start_noise(seed: int = 3) -> Tensor:
    return torch.randn((5, 4, 3), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(
    ("kind", "steps", "spacing"),
    [
        ("ddim", 10, "leading"),
        ("ddim", 20, "trailing"),
        ("ddpm", 100, "leading"),
        ("dpmpp_1", 7, "trailing"),
        ("dpmpp_2m", 7, "trailing"),
        ("dpmpp_1_sde", 10, "trailing"),
        ("dpmpp_2m_sde", 10, "trailing"),
    ],
)
def test_own_samplers_equal_the_diffusers_sampler(
    prediction: str, kind: str, steps: int, spacing: str
) -> None:
    """Our step rules and diffusers' schedulers give the same chunk from the same noise."""
    process = processes.build(
        {"type": "diffusion", "train_steps": 100, "prediction": prediction, "spacing": spacing},
        where="process",
    )
    bound = None if kind.startswith("dpmpp") else 1.0
    ours = own_chunk(process, {"type": kind, "steps": steps, "clip": bound})
    theirs = own_chunk(process, {"type": "diffusers", "scheduler": kind, "steps": steps, "clip": bound})
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [
        ("euler", EulerDiscreteScheduler),
        ("euler_ancestral", EulerAncestralDiscreteScheduler),
    ],
)
def test_euler_rules_equal_diffusers_on_the_diffusion_process(kind: str, scheduler: Any) -> None:
    """Theirs run over sigma / alpha, ours over the noisy chunk itself: the same chunk."""
    process = processes.build({"type": "diffusion", "train_steps": 100, "spacing": "trailing"}, where="p")
    theirs = scheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(10)
    network = mixing_network()
    # The noisiest level of a cosine schedule holds no data: leave it out, as diffusers' float32 loses it, too.
    start = start_noise() / process.grid(10).alpha[0]
    chunk = scheduler_chunk(theirs, start, lambda x, t: network(x, t.float().round().expand(5)))
    torch.testing.assert_close(own_chunk(process, {"type": kind, "steps": 10}), chunk, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize(
    ("kind", "scheduler", "options"),
    [
        ("euler", EDMEulerScheduler, {}),
        ("dpmpp_2m", EDMDPMSolverMultistepScheduler, {"solver_order": 2}),
        ("dpmpp_1", EDMDPMSolverMultistepScheduler, {"solver_order": 1}),
        (
            "dpmpp_2m_sde",
            EDMDPMSolverMultistepScheduler,
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        ),
    ],
)
def test_own_samplers_equal_diffusers_on_the_edm_process(
    spacing: str, kind: str, scheduler: Any, options: dict[str, Any]
) -> None:
    """Preconditioning, grid and rule agree with diffusers' EDM schedulers."""
    process = processes.build({**BESO, "spacing": spacing, "rho": 7.0}, where="process")
    theirs = scheduler(
        sigma_min=0.005, sigma_max=1.0, sigma_data=0.5, sigma_schedule=spacing, rho=7.0, **options
    )
    theirs.set_timesteps(8)
    network = mixing_network()
    # Their networks are told ln(sigma) / 4, ours 10 ln(sigma).
    chunk = scheduler_chunk(theirs, start_noise(), lambda x, t: network(x, 40 * t.expand(5)))
    torch.testing.assert_close(own_chunk(process, {"type": kind, "steps": 8}), chunk, atol=1e-4, rtol=1e-4)


def test_euler_equals_diffusers_on_rectified_flow() -> None:
    """The straight steps of FlowMatchEulerDiscreteScheduler."""
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=torch.linspace(1, 0, 6)[:-1].tolist())
    network = mixing_network()
    chunk = scheduler_chunk(theirs, start_noise(), lambda x, t: network(x, t.expand(5) / 10))
    process = processes.build({"type": "flow"}, where="process")
    torch.testing.assert_close(own_chunk(process, {"type": "euler", "steps": 5}), chunk, atol=1e-5, rtol=1e-5)


def test_heun_equals_diffusers() -> None:
    """The same steps as HeunDiscreteScheduler on its own levels, with the noise as the network's target."""
    theirs = HeunDiscreteScheduler(num_train_timesteps=100, beta_schedule="linear")
    theirs.set_timesteps(6)
    sigma = torch.cat([theirs.sigmas[:1], theirs.sigmas[1:-1:2], torch.zeros(1)]).float()
    network = mixing_network()

    def denoise(x: Tensor, i: int) -> Tensor:
        scaled = x / (sigma[i] ** 2 + 1).sqrt()
        return x - sigma[i] * network(scaled, times[i].expand(5))

    times = torch.cat([theirs.timesteps[:1], theirs.timesteps[1::2]]).float()
    start = start_noise() * sigma[0]
    chunk = heun(denoise, start, Levels(torch.ones_like(sigma), sigma, sigma), lambda: torch.zeros(1))
    expected = scheduler_chunk(theirs, start, lambda x, t: network(x, t.float().expand(5)))
    torch.testing.assert_close(chunk, expected, atol=1e-4, rtol=1e-4)
