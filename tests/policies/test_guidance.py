"""Guidance towards a running plan against closed forms: linear denoisers and Gaussian data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robot_policies.configuration import ConfigError
from robot_policies.denoising import NoiseSource, processes, samplers
from robot_policies.denoising.guidance import Guidance
from robot_policies.denoising.processes import DiffusionProcess, EdmProcess, Levels, Process

PROCESSES = {
    "diffusion": {"type": "diffusion", "train_steps": 50, "prediction": "sample", "spacing": "trailing"},
    "edm": {"type": "edm", "sigma_max": 20.0},
    "flow": {"type": "flow"},
}
T, A = 4, 2


def gaussian_network(process: Process, covariance: Tensor):
    """The best network for chunks of A independent columns N(0, covariance) over time."""

    def posterior_mean(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(T))
        return torch.einsum("ts,bsa->bta", gain, x)

    def network(inputs: Tensor, time: Tensor) -> Tensor:
        if isinstance(process, EdmProcess):
            sigma, data_std = (time[0] / 10).exp(), process.config.sigma_data
            x = inputs * (sigma**2 + data_std**2).sqrt()
            c_skip = data_std**2 / (sigma**2 + data_std**2)
            mean = posterior_mean(x, torch.ones(()), sigma)
            return (mean - c_skip * x) * (sigma**2 + data_std**2).sqrt() / (sigma * data_std)
        if isinstance(process, DiffusionProcess):
            k = int(time[0])
            return posterior_mean(inputs, process.alphas[k], process.sigmas[k])
        t = time[0] / 100
        return (inputs - posterior_mean(inputs, 1 - t, t)) / t

    return network


def guided(name: str, covariance: Tensor, guidance: Guidance | None, sampler: dict, n: int) -> Tensor:
    process = processes.build(PROCESSES[name], where="process")
    noise = NoiseSource((n, T, A), torch.Generator().manual_seed(0), torch.zeros(()))
    built = samplers.build({"clip": None, **sampler}, where="sampler")
    return built(gaussian_network(process, covariance), process, noise, guidance)[0]


def towards(target: Tensor, frozen: int, *, limit: float = 1e9, n: int = 1) -> Guidance:
    weights = (torch.arange(T) < frozen).float()[None, :, None]
    return Guidance(target=target.expand(n, T, A), weights=weights.expand(n, T, 1), limit=limit)


@pytest.mark.parametrize("sampler", [{"type": "ddim", "steps": 5}, {"type": "dpmpp_2m", "steps": 5}])
@pytest.mark.parametrize("name", list(PROCESSES))
def test_frozen_steps_are_met_exactly_for_unit_gaussian_data(name: str, sampler: dict) -> None:
    """Independent data of unit variance: the frozen steps come out as given, the others as without guidance."""
    if name == "flow" and sampler["type"] == "dpmpp_2m":
        sampler = {"type": "ddim", "steps": 9}  # flow's first level has no data at all: lambda is infinite
    target = torch.linspace(-1, 1, T * A).view(T, A)
    free = guided(name, torch.eye(T), None, sampler, 8)
    held = guided(name, torch.eye(T), towards(target, 2, n=8), sampler, 8)
    if name == "flow":  # at alpha = 0 nothing can be inferred from x, so a limit is needed
        held = guided(name, torch.eye(T), towards(target, 2, n=8, limit=1e4), sampler, 8)
    torch.testing.assert_close(held[:, :2], target[:2].expand(8, 2, A), atol=2e-4, rtol=0)
    torch.testing.assert_close(held[:, 2:], free[:, 2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", list(PROCESSES))
def test_free_steps_follow_frozen_ones_through_the_correlation(name: str) -> None:
    """Smooth data: free steps go most of the way to their mean given the frozen one (the method approximates)."""
    lag = (torch.arange(T)[:, None] - torch.arange(T)[None, :]).abs()
    covariance = 0.9**lag
    target = torch.full((T, A), 1.5)
    held = guided(
        name, covariance, towards(target, 1, n=2000, limit=5.0), {"type": "ddim", "steps": 20}, 2000
    )
    share = held.mean(dim=(0, 2)) / (1.5 * 0.9 ** torch.arange(T))
    assert (held[:, 0] - 1.5).abs().mean() < 0.2
    assert share.min() > 0.6
    assert share.max() < 1.1


def test_the_correction_is_the_vector_jacobian_product() -> None:
    """D' - D is the gain times J^T W (Y - D), for a denoiser whose Jacobian is known."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(T, T, generator=generator)
    x, target = torch.randn(3, T, A, generator=generator), torch.randn(3, T, A, generator=generator)
    weights = torch.rand(3, T, 1, generator=generator)
    levels = Levels(torch.tensor(0.8), torch.tensor(0.6), torch.tensor(0.0))
    result = Guidance(target=target, weights=weights, limit=100.0)(lambda y: matrix @ y, x, levels)
    data = matrix @ x
    torch.testing.assert_close(result, data + matrix.T @ (weights * (target - data)) / 0.8)


@pytest.mark.parametrize("tau", [0.05, 0.3, 0.8])
def test_flow_is_guided_as_in_the_paper(tau: float) -> None:
    """For rectified flow, up to tau = 1 - 1 / beta, the estimate is that of equation 2 with its capped weight."""
    x, target, beta = torch.randn(1, T, A), torch.randn(1, T, A), 5.0
    weights = torch.linspace(1, 0, T)[None, :, None]
    levels = Levels(torch.tensor(tau), torch.tensor(1 - tau), torch.tensor(0.0))
    slope = 0.7  # the estimate is linear: D = slope x
    velocity = (slope * x - x) / (1 - tau)
    pull = slope * weights * (target - (x + (1 - tau) * velocity))
    r_squared = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    velocity = velocity + min(beta, (1 - tau) / (tau * r_squared)) * pull
    result = Guidance(target=target, weights=weights, limit=beta)(lambda y: slope * y, x, levels)
    expected = x + (1 - tau) * velocity
    if tau < 0.1:  # our cap is beta at alpha = 0, the paper's beta (1 - tau)
        expected = slope * x + beta * pull
    torch.testing.assert_close(result, expected)


def test_a_row_without_weights_is_not_guided() -> None:
    """Rows of one batch may continue a plan or not; zero weights leave a row as it is."""
    target = torch.ones(2, T, A)
    weights = torch.ones(2, T, 1)
    weights[1] = 0
    guidance = Guidance(target=target, weights=weights, limit=5.0)
    both = guided("edm", torch.eye(T), guidance, {"type": "ddim", "steps": 4}, 2)
    free = guided("edm", torch.eye(T), None, {"type": "ddim", "steps": 4}, 2)
    torch.testing.assert_close(both[1], free[1], atol=1e-6, rtol=0)
    assert (both[0] - free[0]).abs().max() > 0.1


def test_diffusers_schedulers_say_that_they_cannot_be_guided() -> None:
    """A sampler without access to the data estimate refuses, and names one that can."""
    with pytest.raises(ConfigError, match="use sampler=ddim"):
        guided("diffusion", torch.eye(T), towards(torch.zeros(T, A), 1), {"type": "diffusers"}, 1)
