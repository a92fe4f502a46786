"""Answers chunk requests of many episodes with one call of the policy."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robot_datasets.features import Feature, is_image
from robot_datasets.goals import TASK
from robot_policies.evaluation.episode import ChunkRequest
from robot_policies.execution.executor import ChunkExecutor, Continuation
from robot_policies.policy import Policy, PredictedFrames, RunningPlan
from robot_policies.spec import PolicySpec


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The chunks of one batch.

    Attributes:
        chunks: (B, T_p, A) in physical units.
        n_network_calls: Forward passes of the network that the batch cost.
        latency_s: Wall time from observations in RAM to actions in RAM [s].
        frames: What the policy expects to see, if it says so.
        energy: (B,) energy of the chunks, if the policy says so.
    """

    chunks: np.ndarray
    n_network_calls: int
    latency_s: float
    frames: PredictedFrames | None = None
    energy: np.ndarray | None = None


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
    windows = _stacked([request.observation for request in requests])
    wanted = _stacked([request.goal for request in requests])
    started = time.perf_counter()
    with torch.inference_mode():
        observation, goal = _on_device(windows, device), _on_device(wanted, device) or None
        plan = running_plan([request.continuation for request in requests], policy.spec, device)
        if plan is None:
            chunk = policy.predict_chunk(observation, goal=goal, generator=generators, sampler=sampler)
        else:
            chunk = policy.continue_chunk(observation, plan, goal=goal, generator=generators, sampler=sampler)
        actions = chunk.actions.float().cpu().numpy()
    return Prediction(
        chunks=actions,
        n_network_calls=chunk.n_network_calls,
        latency_s=time.perf_counter() - started,
        frames=chunk.predicted_frames,
        energy=None if chunk.energy is None else chunk.energy.float().cpu().numpy(),
    )


def _stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arrays (...) of each row to arrays (B, ...); what is no array (instructions) to a list of B."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: np.stack(values) if isinstance(values[0], np.ndarray) else values
        for name, values in columns.items()
    }


def _on_device(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


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
    spec = policy.spec
    if any(0 in feature.shape for feature in (*spec.observation.values(), *spec.goal.values())):
        return  # a size that varies: only the task knows it
    observation = {name: _blank(name, f, spec.n_obs_steps) for name, f in spec.observation.items()}
    goal: dict[str, Any] = {name: _blank(name, f, spec.n_goal_steps) for name, f in spec.goal.items()}
    if spec.instructed:
        goal[TASK] = "anything"
    continuation = None
    if executor is not None:
        trial = copy.deepcopy(executor)
        blank_chunk = np.zeros((policy.spec.horizon, policy.spec.action_dim), dtype=np.float32)
        trial.push(blank_chunk, computed_for_step=0)
        continuation = trial.continuation()
    request = ChunkRequest(step=0, observation=observation, continuation=continuation, goal=goal)
    predict(policy, [request], [torch.Generator().manual_seed(0)], sampler=sampler, device=device)


def _blank(name: str, feature: Feature, steps: int) -> np.ndarray:
    """A window of zeros, (steps, ...)."""
    shape = feature.shape
    if is_image(name):
        shape = (shape[2], shape[0], shape[1])
    return np.zeros((steps, *shape), dtype=np.uint8 if is_image(name) else np.float32)


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
