"""Evaluate a policy from Python: many environments, one policy, one result per seed.

A seed owns its episode: the initial state, everything that follows in the environment, and the policy's
noise. Results therefore do not depend on the number of workers, and depend on the number of environments
(the size of inference batches) only through floating-point rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robot_policies.evaluation.environments import RegisteredTask, RolloutPlan
from robot_policies.evaluation.results import EpisodeResult
from robot_policies.evaluation.rollout import (
    ENVIRONMENTS_DEFAULT,
    Rollout,
    check_seeds,
    film_results,
    open_pool,
)
from robot_policies.evaluation.video import VideoConfig
from robot_policies.execution.executor import build_executor
from robot_policies.policy import Policy

if TYPE_CHECKING:
    from robot_sim.task import TaskEnv


def evaluate_policy(
    policy: Policy,
    task: str | Callable[[], TaskEnv],
    seeds: Sequence[int],
    *,
    task_options: Mapping[str, Any] | None = None,
    workers: int = 2,
    pool: str = "process",
    n_envs: int | None = None,
    executor: Mapping[str, Any] | None = None,
    inference_delay: int = 0,
    sampler: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    policy_seed: int = 0,
    timeout_s: float = 300.0,
    video: VideoConfig | None = None,
    video_folder: str | Path = "videos",
    on_result: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Roll out a policy on one episode per seed.

    Args:
        policy: The policy; it is moved to `device` and put into evaluation mode for the duration.
        task: Name of a registered task, or a module-level callable that builds the environment.
        seeds: Episode seeds.
        task_options: Options of the registered task.
        workers: Processes for the environments; 0 runs them in this process.
        pool: Where they are, one of `robot_policies.evaluation.rollout.POOLS`.
        n_envs: Environments that run side by side, which is the largest inference batch; by default 16.
        executor: Executor, ``{"type": ...}``; None executes the policy's own T_a steps of each chunk.
        inference_delay: Steps that the environment goes on while a chunk is computed.
        sampler: Replaces the policy's sampler, e.g. ``{"type": "ddim", "steps": 8}``.
        device: Where the policy computes.
        policy_seed: Another value repeats the same initial states with other policy noise.
        timeout_s: A worker silent for so long on one command is killed and its episode retried [s].
        video: Which episodes to film after the evaluation; None films none.
        video_folder: Where the videos go, one ``<seed>.mp4`` each.
        on_result: Called with each result as soon as its episode ends, in the order of completion.

    Returns:
        One result per seed, in the order of `seeds`. An episode that raised is a result with `failure`.

    Raises:
        SpecError: The task does not offer what the policy reads and writes.
        ConfigError: No seeds, a seed twice, or an executor that does not fit the policy or the delay.
    """
    check_seeds(seeds)
    make_env = RegisteredTask(name=task, options=dict(task_options or {})) if isinstance(task, str) else task
    plan = RolloutPlan(
        make_env=make_env,
        spec=policy.spec,
        executor=build_executor(executor, policy.spec),
        inference_delay=inference_delay,
    )
    n_envs = min(len(seeds), n_envs or ENVIRONMENTS_DEFAULT)
    with open_pool(plan, workers=min(workers, n_envs), timeout_s=timeout_s, kind=pool) as environments:
        spec = environments.task_spec
        policy.spec.require(spec.features, fps=spec.fps, who=f"task '{spec.name}'")
        rollout = Rollout(
            environments,
            policy,
            sampler=sampler,
            device=torch.device(device),
            policy_seed=policy_seed,
            on_result=on_result,
        )
        results = rollout.run(seeds, n_envs)
        if video is not None:
            film_results(environments, video.select(results), Path(video_folder), n_envs)
    return results
