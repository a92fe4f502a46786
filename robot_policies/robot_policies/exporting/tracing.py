"""From a policy's sampler to a sampling program, by running the sampler's own step rule on unit vectors.

A step rule combines noise and data estimates linearly, so it is run once with vectors that stand for them: noise draw
j is the unit vector e_j, estimate k is e_{n_draws + k}. What the rule then hands to its denoiser, and returns, are the
coefficients. So no formula of a sampler is written a second time, and a new step rule is exported without a change
here; the parity test of every export would notice one that is not linear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robot_policies.denoising.processes import Levels, Process
from robot_policies.denoising.samplers import StepSampler, check_fit
from robot_policies.exporting.program import ExportError, NetworkCall, SamplingProgram
from robot_policies.policies.base import NetworkPolicy
from robot_policies.policies.consistency import ConsistencyPolicy
from robot_policies.policies.diffusion import DiffusionPolicy
from robot_policies.policies.energy import EnergyPolicy
from robot_policies.policies.frames import FramePolicy
from robot_policies.policies.implicit import ImplicitPolicy
from robot_policies.policies.regression import RegressionPolicy
from robot_policies.policy import Policy

EXPORTABLE = "diffusion, beso, consistency and regression policies"


def network_policy(policy: Policy) -> NetworkPolicy:
    """The part of a policy whose encoder and network are exported.

    Raises:
        ExportError: There is none, and why.
    """
    if isinstance(policy, (EnergyPolicy, ImplicitPolicy)):
        why = "finds its actions by descending an energy's gradient, or by a search, and a graph has neither"
    elif isinstance(policy, FramePolicy):
        why = "denoises frames together with actions, which the exported sampling program does not describe"
    elif isinstance(policy, ConsistencyPolicy):
        return network_policy(policy.student)
    elif not isinstance(policy, (DiffusionPolicy, RegressionPolicy)):
        why = "is not a network with a sampler"
    elif policy.spec.instructed:
        why = "reads its instruction as text, and the text encoder is no graph"
    else:
        return policy
    raise ExportError(
        f"a {type(policy).__name__} cannot be exported: it {why}; exported are {EXPORTABLE}; "
        "run this one from its checkpoint, with torch"
    )


def trace_program(policy: Policy, sampler: Mapping[str, Any] | None) -> SamplingProgram:
    """Return the sampling program of a policy.

    Args:
        policy: The policy.
        sampler: Replaces its default sampler; None keeps that.

    Raises:
        ExportError: The policy or sampler cannot be exported.
        ConfigError: The sampler does not fit the policy.
    """
    network_policy(policy)
    if isinstance(policy, ConsistencyPolicy):
        return _consistency(policy, sampler)
    if isinstance(policy, RegressionPolicy):
        if sampler is not None:
            raise ExportError("a regression policy has no sampler to replace; leave --sampler out")
        return _regression(policy)
    assert isinstance(policy, DiffusionPolicy)
    return _diffusion(policy, sampler)


def _diffusion(policy: DiffusionPolicy, values: Mapping[str, Any] | None) -> SamplingProgram:
    sampler = policy.sampler if values is None else policy._build_sampler(values)
    if not isinstance(sampler, StepSampler):
        raise ExportError(
            "a diffusers scheduler cannot be exported; choose one of this project's samplers, e.g. --sampler ddim"
        )
    config, process = sampler.config, policy.process
    if config.goal_scale != 1.0 and policy.goal_encoder is not None:
        raise ExportError(
            f"sampler.goal_scale={config.goal_scale:g} calls the network twice, which is not exported; use 1"
        )
    check_fit(config, process, sampler.fits)
    levels = Levels(*(level.double() for level in sampler.grid(process, config.steps)))
    scale = process.initial_scale * config.temperature
    n_draws, n_calls = _counted(sampler, levels)
    unit = torch.eye(n_draws + n_calls, dtype=torch.float64)[:, None, None]
    draws, seen = iter(unit[:n_draws]), []

    def denoise(x: Tensor, i: int) -> Tensor:
        seen.append((_row(x, n_draws + len(seen)), i))
        return unit[n_draws + len(seen) - 1]

    result = sampler.rule(denoise, next(draws) * scale, levels, lambda: next(draws))
    return SamplingProgram(
        n_draws=n_draws,
        calls=tuple(_call(process, levels, i, row) for row, i in seen),
        result=_row(result, n_draws + n_calls),
        clip=config.clip,
        clip_result=config.clip,
    )


def _counted(sampler: StepSampler, levels: Levels) -> tuple[int, int]:
    """How often a rule draws noise, and how often it calls the network."""
    counts = [1, 0]
    zero = torch.zeros(1, 1, 1, dtype=torch.float64)

    def count(which: int) -> Tensor:
        counts[which] += 1
        return zero

    sampler.rule(lambda x, i: count(1), zero, levels, lambda: count(0))
    return counts[0], counts[1]


def _row(x: Tensor, length: int) -> tuple[float, ...]:
    coefficients = x.flatten()
    if coefficients[length:].any():
        raise ExportError("this sampler uses an estimate before it is made; it cannot be exported")
    return tuple(coefficients[:length].tolist())


def _call(process: Process, levels: Levels, i: int, row: tuple[float, ...]) -> NetworkCall:
    """A call at one noise level; scaling and recovery of the data are linear, so 0 and 1 tell all of them."""
    here = Levels(levels.alpha[i], levels.sigma[i], levels.time[i])
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    return NetworkCall(
        row=row,
        scale=float(process.network_input(one, here)),
        time=float(here.time),
        skip=float(process.recover(zero, one, here)),
        out=float(process.recover(one, zero, here)),
    )


def _regression(policy: RegressionPolicy) -> SamplingProgram:
    """One call on zeros; with `refine_at`, a second one on a share of the first answer."""
    refine = policy.config.refine_at
    first = NetworkCall(row=(), scale=1.0, time=0.0, skip=0.0, out=1.0)
    calls, result = (first,), (1.0,)
    if refine is not None:
        second = NetworkCall(row=(refine,), scale=1.0, time=100.0 * refine, skip=0.0, out=1.0)
        calls, result = (first, second), (0.0, 1.0)
    bounded = 1.0 if policy.config.bounded_actions else None
    return SamplingProgram(n_draws=0, calls=calls, result=result, clip=None, clip_result=bounded)


def _consistency(policy: ConsistencyPolicy, values: Mapping[str, Any] | None) -> SamplingProgram:
    inference = policy.inference if values is None else policy._build_inference(values)
    process = policy.student.process
    levels = Levels(*(level.double() for level in policy.levels))
    chosen = torch.linspace(0, policy.config.levels, inference.steps + 1).round().long()[:-1].tolist()
    n, calls = len(chosen), []
    for k, i in enumerate(chosen):
        row = [0.0] * (n + k)
        row[k] = float(levels.sigma[i]) if k else process.initial_scale * inference.temperature
        if k:
            row[n + k - 1] = float(levels.alpha[i])
        keep, take = policy.boundary(float(levels.alpha[i]), float(levels.sigma[i]))
        calls.append(replace(_call(process, levels, i, tuple(row)), keep=keep, take=take))
    bounded = 1.0 if policy.student.config.bounded_actions else None
    result = (*[0.0] * (2 * n - 1), 1.0)
    return SamplingProgram(n_draws=n, calls=tuple(calls), result=result, clip=bounded, clip_result=bounded)
