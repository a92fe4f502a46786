"""Noise processes, schedules, and how samplers are configured; samplers themselves: test_samplers.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.denoising import diffusers_samplers
from robot_policies.denoising.processes import Levels, Process, processes
from robot_policies.denoising.rules import ancestral
from robot_policies.denoising.samplers import NoiseSource, samplers
from robot_policies.denoising.schedules import squared_cosine_betas

PROCESSES = {
    "epsilon": {"type": "diffusion", "train_steps": 1000, "prediction": "epsilon", "spacing": "trailing"},
    "sample": {"type": "diffusion", "train_steps": 1000, "prediction": "sample", "spacing": "trailing"},
    "v": {"type": "diffusion", "train_steps": 1000, "prediction": "v", "spacing": "trailing"},
    "edm": {"type": "edm", "sigma_max": 80.0, "sigma_min": 0.002},
    "flow": {"type": "flow"},
    "flow of samples": {"type": "flow", "prediction": "sample"},
}


def make_process(name: str) -> Process:
    return processes.build(PROCESSES[name], where="process")


@pytest.mark.parametrize("name", PROCESSES)
def test_recover_inverts_the_target(name: str) -> None:
    """Given the true target as output, every parameterisation recovers the data exactly."""
    process = make_process(name)
    torch.manual_seed(0)
    data = torch.randn(64, 4, 2)
    batch = process.training_batch(data)
    grid_like = {"edm": lambda t: Levels(torch.ones_like(t), (t / 10).exp(), t)}
    grid_like["flow"] = lambda t: Levels(1 - t / 100, t / 100, t)
    kind = PROCESSES[name]["type"]
    if kind in grid_like:
        levels = grid_like[kind](batch.time)
    else:
        k = batch.time.long()
        levels = Levels(process.alphas[k], process.sigmas[k], batch.time)  # type: ignore[attr-defined]
    levels = Levels(*(level[:, None, None] for level in levels))
    x = batch.network_input / process.network_input(torch.ones_like(data), levels)
    recovered = process.recover(batch.target, x, levels)
    keep = levels.alpha.expand_as(data) > 0.05  # at the noisiest steps epsilon divides by almost zero
    assert keep.float().mean() > 0.8
    torch.testing.assert_close(recovered[keep], data[keep], atol=2e-3, rtol=1e-3)


def test_euler_ancestral_step_is_the_posterior() -> None:
    """From sigma 2 to 1 about data at 0.5: mean and variance of q(x' | x, data) of EDM's process."""
    torch.manual_seed(0)
    one = torch.ones(3)
    levels = Levels(one, torch.tensor([2.0, 1.0, 0.5]), one)
    seen: list[Tensor] = []

    def denoise(x: Tensor, i: int) -> Tensor:
        seen.append(x)
        return torch.full_like(x, 0.5)

    ancestral(denoise, torch.full((50_000,), 2.5), levels, lambda: torch.randn(50_000), eta=1.0)
    assert float(seen[1].mean()) == pytest.approx(0.5 + (1 / 4) * 2.0, abs=0.02)
    assert float(seen[1].var()) == pytest.approx(1 * (1 - 1 / 4), abs=0.02)


@pytest.mark.parametrize(
    ("spacing", "middle"),
    [
        ("exponential", 0.1),
        ("linear", 0.505),
        ("karras", ((1 + 0.1**0.4) / 2) ** 5),
        ("cosine", math.tan((math.pi / 4 + math.atan(0.01)) / 2)),
        ("vp", 0.4686),
    ],
)
def test_edm_grids_run_from_the_largest_to_the_smallest_level_and_zero(spacing: str, middle: float) -> None:
    """Of three levels between 1 and 0.01 the middle one is the schedule's own mean of the two."""
    process = processes.build(
        {"type": "edm", "sigma_max": 1.0, "sigma_min": 0.01, "spacing": spacing}, where="process"
    )
    torch.testing.assert_close(
        process.grid(3).sigma, torch.tensor([1.0, middle, 0.01, 0.0]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("low", "high"), [(0.005, 1.0), (0.3, 0.6)])
def test_log_logistic_training_levels_follow_their_distribution(low: float, high: float) -> None:
    """Truncated log-logistic levels: within the bounds, with the closed-form distribution function."""
    process = processes.build(
        {"type": "edm", "sigma_min": low, "sigma_max": high, "training_levels": "log_logistic"},
        where="process",
    )
    torch.manual_seed(0)
    log_sigma = process.training_batch(torch.zeros(20_000, 1, 1)).time.double() / 10
    bounds = torch.tensor([low, high], dtype=torch.float64).log()
    assert log_sigma.min() >= bounds[0] - 1e-6
    assert log_sigma.max() <= bounds[1] + 1e-6

    def distribution(x: Tensor) -> Tensor:
        return torch.sigmoid((x - math.log(0.5)) / 0.5)

    start, end = distribution(bounds)
    expected = (distribution(log_sigma.sort().values) - start) / (end - start)
    assert (expected - torch.linspace(0, 1, 20_000)).abs().max() < 0.02


@pytest.mark.parametrize(("distribution", "power"), [("uniform", 1.0), ("beta", 1.5)])
def test_flow_times_follow_their_distribution(distribution: str, power: float) -> None:
    """Uniform, or Beta(1.5, 1) pressed into [0.001, 1], whose distribution function is t^1.5."""
    process = processes.build({"type": "flow", "time_distribution": distribution}, where="process")
    torch.manual_seed(0)
    time = process.training_batch(torch.zeros(20_000, 1, 1)).time.double().sort().values / 100
    if distribution == "beta":
        time = (time - 0.001) / 0.999
    assert (time.clamp(min=0) ** power - torch.linspace(0, 1, 20_000)).abs().max() < 0.02


def test_a_schedule_that_does_not_arrive_at_noise_is_refused() -> None:
    """DDPM's linear betas need about a thousand steps; with a hundred, sampling would start where none ended."""
    with pytest.raises(ConfigError, match=r"leave 0\.60 of the data"):
        processes.build({"type": "diffusion", "beta_schedule": "linear", "train_steps": 100}, where="process")


@pytest.mark.parametrize("name", PROCESSES)
def test_the_finest_grid_holds_the_levels_of_a_coarser_one(name: str) -> None:
    """A network that knows the finest grid knows every other, up to the spacing of a continuous one."""
    process = make_process(name)
    fine, coarse = process.finest_grid(), process.grid(10)
    distance = (coarse.time[:-1, None] - fine.time[None, :-1]).abs().min(dim=1).values
    assert float(distance.max()) < 0.1


def test_cosine_schedule_equals_diffusers() -> None:
    """Betas are those of squaredcos_cap_v2."""
    scheduler = diffusers_samplers.make_scheduler(
        diffusers_samplers.DiffusersConfig(scheduler="ddpm"),
        make_process("epsilon"),  # type: ignore[arg-type]
    )
    torch.testing.assert_close(squared_cosine_betas(1000), scheduler.betas)


@pytest.mark.parametrize(
    ("process", "sampler"),
    [("edm", {"type": "ddpm"}), ("epsilon", {"type": "heun"}), ("edm", {"type": "diffusers"})],
)
def test_a_sampler_that_does_not_fit_says_so(process: str, sampler: dict) -> None:
    """Sampler and process that do not fit end in an error that names an alternative."""
    with pytest.raises(ConfigError, match="use ddim"):
        samplers.build(sampler, where="sampler")(
            lambda x, t: x, make_process(process), NoiseSource((1, 1, 1), None, torch.zeros(1))
        )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "dimm"}, "did you mean 'ddim'"),
        ({"type": "ddim", "step": 4}, "did you mean 'steps'"),
        ({"type": "ddim", "steps": 0}, "steps must be >= 1"),
        ({"type": "ddim", "steps": "ten"}, "expected int"),
        ({"type": "euler_ancestral", "eta": 1.5}, "eta must be between 0 and 1"),
        ({"type": "ddim", "eta": -0.1}, "eta must be between 0 and 1"),
        ({"type": "two_step", "steps": 3}, "needs steps=2"),
        ({"type": "two_step", "refine_at": 1.0}, "refine_at in"),
    ],
)
def test_bad_sampler_configuration_is_explained(config: dict, message: str) -> None:
    """Unknown types and keys name the nearest match; values are checked."""
    with pytest.raises(ConfigError, match=message):
        samplers.build(config, where="sampler")


def test_more_steps_than_were_trained_is_an_error() -> None:
    """A grid cannot have more steps than the training schedule."""
    process = processes.build({"type": "diffusion", "train_steps": 100}, where="process")
    with pytest.raises(ConfigError, match="between 1 and train_steps=100"):
        process.grid(101)


def test_one_generator_per_row_makes_rows_independent_of_the_batch() -> None:
    """A row's noise is the same alone and in company."""
    together = NoiseSource((3, 2, 2), [torch.Generator().manual_seed(s) for s in range(3)], torch.zeros(1))()
    alone = NoiseSource((1, 2, 2), [torch.Generator().manual_seed(2)], torch.zeros(1))()
    torch.testing.assert_close(together[2:], alone, atol=0, rtol=0)
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        NoiseSource((3, 2, 2), [torch.Generator(), torch.Generator()], torch.zeros(1))()
