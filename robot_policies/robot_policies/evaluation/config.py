"""Configuration of ``robot-policies eval``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_policies.configuration import ConfigError, from_mapping
from robot_policies.evaluation.rollout import ENVIRONMENTS_DEFAULT, check_pool
from robot_policies.evaluation.sequential import EarlyStop
from robot_policies.evaluation.video import VideoConfig
from robot_policies.policies.resampling import ResampleConfig
from robot_policies.policies.retrying import RetryConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Configuration of ``robot-policies eval``.

    Attributes:
        checkpoint: Run directory or checkpoint directory.
        embodiment: Of a policy that was trained on several robots: which one to act for.
        task: Task name, or ``{"name": ..., options}``; None takes the task the policy was trained for.
        episodes: Number of episodes.
        seed_start: First seed; None takes the task's first held-out seed.
        policy_seed: Another value repeats the same initial states with other policy noise.
        workers: Worker processes; 0 runs the environments in this process.
        pool: Where they are, one of `robot_policies.evaluation.rollout.POOLS`.
        n_envs: Environments that run side by side, the largest inference batch.
        executor: Executor, ``{"type": ...}``.
        inference_delay: Steps that the environment goes on while a chunk is computed; 0 stops it.
        sampler: Replaces the policy's sampler; None keeps it.
        retry: Draw again when the energy of a chunk is high; None never does.
        resample: Draw several chunks and keep the one that continues the running plan best; None draws one.
        device: ``auto``, ``cpu``, ``cuda``, ...
        threads: Torch threads; None leaves torch's choice.
        timeout_s: A worker silent for so long on one command is killed [s].
        latency_calls: Policy calls timed for one environment; 0 for none.
        video: Which episodes are filmed.
        output_dir: Results folder; None puts it into the run directory.
        disturbance: What the task is disturbed by, ``{"type": "push", ...}``; None leaves it alone.
        stop: When to end before all episodes are played; None plays all.
        resume: Continue a folder that holds results of the same protocol.
        overwrite: Remove earlier results from the folder first.
    """

    checkpoint: str
    embodiment: str | None = None
    task: Any = None
    episodes: int = 50
    seed_start: int | None = None
    policy_seed: int = 0
    workers: int = 2
    pool: str = "process"
    n_envs: int = ENVIRONMENTS_DEFAULT
    executor: Mapping[str, Any] = field(default_factory=lambda: {"type": "receding_horizon"})
    inference_delay: int = 0
    sampler: Mapping[str, Any] | None = None
    retry: RetryConfig | None = None
    resample: ResampleConfig | None = None
    device: str = "auto"
    threads: int | None = None
    timeout_s: float = 300.0
    latency_calls: int = 30
    video: VideoConfig = field(default_factory=VideoConfig)
    disturbance: Mapping[str, Any] | None = None
    stop: EarlyStop | None = None
    output_dir: str | None = None
    resume: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes: expected >= 1, got {self.episodes}; an evaluation needs an episode")
        if self.n_envs < 1:
            raise ConfigError(f"n_envs: expected >= 1, got {self.n_envs}")
        check_pool(self.pool, self.workers)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> EvaluationConfig:
        """Validate a resolved configuration tree.

        Raises:
            ConfigError: A key is unknown or missing, or a value out of range.
        """
        return from_mapping(cls, values, where="eval")
