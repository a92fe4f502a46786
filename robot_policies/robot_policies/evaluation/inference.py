"""Answers chunk requests of many episodes with one call of the policy."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robot_datasets.features import is_image
from robot_policies.evaluation.episode import ChunkRequest
from robot_policies.execution.executor import ChunkExecutor, Continuation
from robot_policies.policy import Policy, RunningPlan
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The chunks of one batch.

    Attributes:
        chunks: (B, T_p, A) in physical units.
        n_network_calls: Forward passes of the network that the batch cost.
        latency_s: Wall time from observations in RAM to actions in RAM [s].
    """

    chunks: np.ndarray
    n_network_calls: int
    latency_s: float


def episode_generator(seed: int, policy_seed: int) -> torch.Generator:
    """The source of an episode's policy noise: fixed by both seeds, unlike any other episode's.

    It lives on the CPU, so that a seed means the same noise on every device.
    """
    mixed = np.random.SeedSequence([seed, policy_seed]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def predict(
    policy: Policy,
    requests: Sequence[ChunkRequest],
    generators: Sequence[torch.Generator],
    *,
    sampler: Mapping[str, Any] | None,
    device: torch.device,
) -> Prediction:
    """Predict one chunk per request; row i draws its noise from ``generators[i]``."""
    names = requests[0].observation
    windows = {name: np.stack([request.observation[name] for request in requests]) for name in names}
    started = time.perf_counter()
    with torch.inference_mode():
        observation = {name: torch.from_numpy(window).to(device) for name, window in windows.items()}
        plan = running_plan([request.continuation for request in requests], policy.spec, device)
        if plan is None:
            chunk = policy.predict_chunk(observation, generator=generators, sampler=sampler)
        else:
            chunk = policy.continue_chunk(observation, plan, generator=generators, sampler=sampler)
        actions = chunk.actions.float().cpu().numpy()
    return Prediction(
        chunks=actions, n_network_calls=chunk.n_network_calls, latency_s=time.perf_counter() - started
    )


def running_plan(
    continuations: Sequence[Continuation | None], spec: PolicySpec, device: torch.device
) -> RunningPlan | None:
    """Stack what the rows of a batch have to agree with; None if all of them are free."""
    given = [c for c in continuations if c is not None]
    if not given:
        return None
    actions = np.zeros((len(continuations), spec.horizon, spec.action_dim), dtype=np.float32)
    weights = np.zeros((len(continuations), spec.horizon), dtype=np.float32)
    for row, continuation in enumerate(continuations):
        if continuation is not None:
            actions[row], weights[row] = continuation.actions, continuation.weights
    return RunningPlan(
        actions=torch.from_numpy(actions).to(device),
        weights=torch.from_numpy(weights).to(device),
        limit=given[0].limit,
    )


def try_prediction(
    policy: Policy,
    *,
    sampler: Mapping[str, Any] | None,
    device: torch.device,
    executor: ChunkExecutor | None = None,
) -> None:
    """Predict once from blank observations, so that what does not fit fails before anything starts.

    Raises:
        UserError: The sampler is unknown, misconfigured, or does not fit the policy; or the policy cannot
            continue a running plan as the executor wants it to.
    """
    blank: dict[str, np.ndarray] = {}
    for name, feature in policy.spec.observation.items():
        if 0 in feature.shape:  # a size that varies: only the task knows it
            return
        shape = feature.shape
        if is_image(name):
            shape = (shape[2], shape[0], shape[1])
        dtype = np.uint8 if is_image(name) else np.float32
        blank[name] = np.zeros((policy.spec.n_obs_steps, *shape), dtype=dtype)
    continuation = None
    if executor is not None:
        trial = copy.deepcopy(executor)
        blank_chunk = np.zeros((policy.spec.horizon, policy.spec.action_dim), dtype=np.float32)
        trial.push(blank_chunk, computed_for_step=0)
        continuation = trial.continuation()
    request = ChunkRequest(step=0, observation=blank, continuation=continuation)
    predict(policy, [request], [torch.Generator().manual_seed(0)], sampler=sampler, device=device)


def measure_latency(
    policy: Policy,
    request: ChunkRequest,
    *,
    sampler: Mapping[str, Any] | None,
    device: torch.device,
    calls: int = 30,
    budget_s: float = 10.0,
) -> list[float]:
    """Wall times of policy calls for one environment, as a robot would make them [ms].

    The first call warms up and is not counted. Measuring ends after `calls`, or after `budget_s` once there
    is one measurement.
    """
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    times: list[float] = []
    for call in range(calls + 1):
        prediction = predict(policy, [request], [generator], sampler=sampler, device=device)
        if call > 0:
            times.append(round(1e3 * prediction.latency_s, 4))
            if time.perf_counter() - started > budget_s:
                break
    return times
