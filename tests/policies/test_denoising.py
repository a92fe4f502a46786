"""Noise processes and samplers against closed forms and against diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.denoising import diffusers_samplers
from robot_policies.denoising.processes import Levels, Process, processes, squared_cosine_betas
from robot_policies.denoising.samplers import NoiseSource, euler_ancestral, samplers

PROCESSES = {
    "epsilon": {"type": "diffusion", "train_steps": 1000, "prediction": "epsilon", "spacing": "trailing"},
    "sample": {"type": "diffusion", "train_steps": 1000, "prediction": "sample", "spacing": "trailing"},
    "v": {"type": "diffusion", "train_steps": 1000, "prediction": "v", "spacing": "trailing"},
    "edm": {"type": "edm", "sigma_max": 80.0, "sigma_min": 0.002},
    "flow": {"type": "flow"},
}
MEAN, STD = 0.3, 0.4


def make_process(name: str) -> Process:
    return processes.build(PROCESSES[name], where="process")


def exact_network(name: str, process: Process):
    """The best possible network for Gaussian data N(MEAN, STD^2): inverts `recover` at the posterior mean."""
    time_to_level: dict[float, tuple[Tensor, Tensor]] = {}
    for steps in range(1, 1001):
        if name in ("epsilon", "sample", "v") and steps not in (1, 5, 10, 20, 50, 100, 200, 1000):
            continue
        if steps > 200 and name in ("edm", "flow"):
            break
        grid = process.grid(steps)
        for a, s, t in zip(*grid, strict=True):
            if s > 0:
                time_to_level[round(float(t), 4)] = (a, s)

    def network(inputs: Tensor, time: Tensor) -> Tensor:
        alpha, sigma = time_to_level[round(float(time[0]), 4)]
        one, zero = torch.ones_like(inputs), torch.zeros_like(inputs)
        levels = Levels(alpha, sigma, time[0])
        scale = process.network_input(one, levels)
        x = inputs / scale
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        data = MEAN + gain * (x - alpha * MEAN)
        # recover() is affine in the output: solve it for the output that yields `data`.
        at_zero = process.recover(zero, x, levels)
        slope = process.recover(one, x, levels) - at_zero
        return (data - at_zero) / slope

    return network


def sample(name: str, config: dict, n: int = 4096, seed: int = 0) -> tuple[Tensor, Tensor, int]:
    process = make_process(name)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn((n, 1, 1), generator=generator, dtype=torch.float32)
    noise = NoiseSource((n, 1, 1), torch.Generator().manual_seed(seed), torch.zeros(1))
    chunk, calls = samplers.build({"clip": None, **config}, where="sampler")(
        exact_network(name, process), process, noise
    )
    return start * process.initial_scale, chunk, calls


@pytest.mark.parametrize("name", PROCESSES)
def test_recover_inverts_the_target(name: str) -> None:
    """Given the true target as output, every parameterisation recovers the data exactly."""
    process = make_process(name)
    torch.manual_seed(0)
    data = torch.randn(64, 4, 2)
    batch = process.training_batch(data)
    grid_like = {"edm": lambda t: Levels(torch.ones_like(t), (t / 10).exp(), t)}
    grid_like["flow"] = lambda t: Levels(1 - t / 100, t / 100, t)
    if name in grid_like:
        levels = grid_like[name](batch.time)
    else:
        k = batch.time.long()
        levels = Levels(process.alphas[k], process.sigmas[k], batch.time)  # type: ignore[attr-defined]
    levels = Levels(*(level[:, None, None] for level in levels))
    x = batch.network_input / process.network_input(torch.ones_like(data), levels)
    recovered = process.recover(batch.target, x, levels)
    keep = levels.alpha.expand_as(data) > 0.05  # at the noisiest steps epsilon divides by almost zero
    assert keep.float().mean() > 0.8
    torch.testing.assert_close(recovered[keep], data[keep], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["epsilon", "sample", "v", "edm", "flow"])
@pytest.mark.parametrize("sampler", [{"type": "ddim", "steps": 200}, {"type": "dpmpp_2m", "steps": 50}])
def test_deterministic_samplers_solve_the_gaussian_ode(name: str, sampler: dict) -> None:
    """With the exact score of Gaussian data the ODE is linear: the standardised value is preserved."""
    assert gaussian_ode_error(name, sampler["type"], sampler["steps"])[0] < 0.01


def gaussian_ode_error(name: str, kind: str, steps: int) -> tuple[float, int]:
    start, chunk, calls = sample(name, {"type": kind, "steps": steps})
    grid = make_process(name).grid(steps)
    alpha, sigma = grid.alpha[0], grid.sigma[0]
    expected = MEAN + STD * (start - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()
    return float((chunk - expected).abs().mean()), calls


@pytest.mark.parametrize(
    ("name", "kind", "calls"), [("edm", "heun", 99), ("edm", "dpmpp_2m", 50), ("epsilon", "dpmpp_2m", 50)]
)
def test_second_order_samplers_beat_ddim_on_the_same_grid(name: str, kind: str, calls: int) -> None:
    """At 50 steps the second-order error on the Gaussian ODE is at most a quarter of DDIM's."""
    first_order, _ = gaussian_ode_error(name, "ddim", 50)
    second_order, counted = gaussian_ode_error(name, kind, 50)
    assert counted == calls
    assert second_order < first_order / 4


@pytest.mark.parametrize(
    "config", [{"type": "ddpm", "steps": 1000}, {"type": "ddim", "steps": 1000, "eta": 1.0}]
)
def test_ancestral_samplers_draw_from_the_data_distribution(config: dict) -> None:
    """DDPM and DDIM with eta 1 reproduce mean and spread of Gaussian data."""
    _, chunk, _ = sample("epsilon", config, n=8192)
    assert abs(float(chunk.mean()) - MEAN) < 0.02
    assert abs(float(chunk.std()) - STD) < 0.02


@pytest.mark.parametrize("name", ["epsilon", "edm", "flow"])
def test_euler_ancestral_draws_from_the_data_distribution(name: str) -> None:
    """With the exact score of Gaussian data, mean and spread are reproduced whatever the process."""
    _, chunk, calls = sample(name, {"type": "euler_ancestral", "steps": 200}, n=8192)
    assert calls == 200
    assert abs(float(chunk.mean()) - MEAN) < 0.02
    assert abs(float(chunk.std()) - STD) < 0.02


def test_euler_ancestral_is_ddpm_on_its_process_and_ddim_without_renewal() -> None:
    """With eta 1 the posterior of DDPM, with eta 0 the deterministic rule of DDIM: same noise, same chunk."""
    for name, ours, other in (("v", 1.0, {"type": "ddpm"}), ("edm", 0.0, {"type": "ddim"})):
        _, ancestral, _ = sample(name, {"type": "euler_ancestral", "steps": 100, "eta": ours}, n=256)
        _, expected, _ = sample(name, {**other, "steps": 100}, n=256)
        torch.testing.assert_close(ancestral, expected, atol=2e-4, rtol=1e-3)


def test_euler_ancestral_step_is_the_posterior() -> None:
    """From sigma 2 to 1 about data at 0.5: mean and variance of q(x' | x, data) of EDM's process."""
    torch.manual_seed(0)
    one = torch.ones(3)
    levels = Levels(one, torch.tensor([2.0, 1.0, 0.5]), one)
    seen: list[Tensor] = []

    def denoise(x: Tensor, i: int) -> Tensor:
        seen.append(x)
        return torch.full_like(x, 0.5)

    euler_ancestral(denoise, torch.full((50_000,), 2.5), levels, lambda: torch.randn(50_000))
    assert float(seen[1].mean()) == pytest.approx(0.5 + (1 / 4) * 2.0, abs=0.02)
    assert float(seen[1].var()) == pytest.approx(1 * (1 - 1 / 4), abs=0.02)


@pytest.mark.parametrize(
    ("spacing", "middle"), [("exponential", 0.1), ("linear", 0.505), ("karras", ((1 + 0.1**0.4) / 2) ** 5)]
)
def test_edm_grids_run_from_the_largest_to_the_smallest_level_and_zero(spacing: str, middle: float) -> None:
    """Of three levels between 1 and 0.01 the middle one is the geometric, arithmetic or Karras' mean."""
    process = processes.build(
        {"type": "edm", "sigma_max": 1.0, "sigma_min": 0.01, "spacing": spacing}, where="process"
    )
    torch.testing.assert_close(process.grid(3).sigma, torch.tensor([1.0, middle, 0.01, 0.0]))


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


def test_ddim_with_eta_one_is_ddpm() -> None:
    """The two ancestral formulas are one: same noise, same chunk."""
    _, ddpm, _ = sample("v", {"type": "ddpm", "steps": 100}, n=256)
    _, ddim, _ = sample("v", {"type": "ddim", "steps": 100, "eta": 1.0}, n=256)
    torch.testing.assert_close(ddpm, ddim, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(
    ("kind", "steps", "spacing"),
    [
        ("ddim", 10, "leading"),
        ("ddim", 20, "trailing"),
        ("ddpm", 100, "leading"),
        ("dpmpp_2m", 7, "trailing"),
        ("dpmpp_2m", 10, "trailing"),
    ],
)
def test_own_samplers_equal_diffusers(prediction: str, kind: str, steps: int, spacing: str) -> None:
    """Our step rules and diffusers' schedulers give the same chunk from the same noise."""
    process = processes.build(
        {"type": "diffusion", "train_steps": 100, "prediction": prediction, "spacing": spacing},
        where="process",
    )
    torch.manual_seed(1)
    mix = torch.randn(3, 3) * 0.3

    def network(x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x @ mix + 0.01 * time[:, None, None])

    bound = None if kind == "dpmpp_2m" else 1.0

    def run(config: dict) -> Tensor:
        noise = NoiseSource((5, 4, 3), torch.Generator().manual_seed(3), torch.zeros(1))
        return samplers.build({"steps": steps, "clip": bound, **config}, where="sampler")(
            network, process, noise
        )[0]

    torch.testing.assert_close(
        run({"type": kind}), run({"type": "diffusers", "scheduler": kind}), atol=2e-4, rtol=2e-4
    )


def test_cosine_schedule_equals_diffusers() -> None:
    """Betas are those of squaredcos_cap_v2."""
    scheduler = diffusers_samplers.make_scheduler(
        diffusers_samplers.DiffusersConfig(scheduler="ddpm"),
        make_process("epsilon"),  # type: ignore[arg-type]
    )
    torch.testing.assert_close(squared_cosine_betas(1000), scheduler.betas)


@pytest.mark.parametrize(
    ("process", "sampler"),
    [("edm", {"type": "ddpm"}), ("flow", {"type": "heun"}), ("edm", {"type": "diffusers"})],
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
