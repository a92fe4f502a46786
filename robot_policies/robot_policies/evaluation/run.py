"""Evaluate a checkpoint into a results folder: rollouts, latency, videos, summary, report.

Every step leaves the folder usable: results are appended as episodes end, and the same call continues
where an interrupted one stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robot_datasets.errors import unknown_name
from robot_datasets.features import is_image
from robot_policies.checkpoint import LoadedPolicy, default_sampler, load_policy
from robot_policies.configuration import ConfigError, from_mapping, to_mapping
from robot_policies.embodiments import embodiment_names
from robot_policies.evaluation.config import EvaluationConfig
from robot_policies.evaluation.environments import EnvironmentPool, RegisteredTask, RolloutPlan
from robot_policies.evaluation.inference import measure_latency, try_prediction
from robot_policies.evaluation.protocol import IDENTITY, build_protocol, select
from robot_policies.evaluation.report import write_report
from robot_policies.evaluation.results import EpisodeResult, ResultsFolder, write_json
from robot_policies.evaluation.rollout import (
    Rollout,
    check_seeds,
    evaluating,
    film_results,
    open_pool,
)
from robot_policies.evaluation.sequential import reason_to_stop
from robot_policies.evaluation.summary import summarise
from robot_policies.evaluation.video import Tile, write_grid
from robot_policies.execution.executor import build_executor, executors
from robot_policies.policies.resampling import ResamplingPolicy
from robot_policies.policies.retrying import RetryingPolicy

logger = logging.getLogger(__name__)

Progress = Callable[[Sequence[EpisodeResult], int], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished evaluation: its folder, the numbers, and the report."""

    folder: ResultsFolder
    summary: dict[str, Any]
    report: Path


def run_evaluation(
    config: EvaluationConfig, *, command: Sequence[str] = (), progress: Progress | None = None
) -> Evaluation:
    """Evaluate a checkpoint as configured.

    Args:
        config: What to do.
        command: The command line that repeats this, for the report.
        progress: Called after each episode with the results so far and the number wanted.

    Raises:
        UserError: A missing checkpoint, an unknown task, a task that does not fit, results of another
            protocol, ...
    """
    device = _device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    loaded = load_policy(config.checkpoint, device=device, embodiment=config.embodiment)
    if config.embodiment is None and (names := embodiment_names(loaded.dataset_card)):
        raise ConfigError(
            f"{config.checkpoint} was trained on several robots; choose embodiment={'|'.join(names)}"
        )
    if config.retry is not None and config.resample is not None:
        raise ConfigError("retry and resample exclude each other; leave one of them null")
    if config.retry is not None:
        loaded = replace(loaded, policy=RetryingPolicy(loaded.policy, config.retry))
    if config.resample is not None:
        if config.executor["type"] != "real_time":
            raise ConfigError("resample compares chunks with the running plan; it needs executor=real_time")
        loaded = replace(loaded, policy=ResamplingPolicy(loaded.policy, config.resample))
    name, options = _task(config.task, loaded)
    plan = RolloutPlan(
        make_env=RegisteredTask(name=name, options=options, disturbance=_disturbance(config.disturbance)),
        spec=loaded.spec,
        executor=build_executor(config.executor, loaded.spec),
        inference_delay=config.inference_delay,
    )
    try_prediction(loaded.policy, sampler=config.sampler, device=device, executor=plan.executor)
    workers = min(config.workers, config.episodes)
    with open_pool(plan, workers=workers, timeout_s=config.timeout_s, kind=config.pool) as pool:
        task = pool.task_spec
        loaded.spec.require(task.features, fps=task.fps, who=f"task '{task.name}'")
        protocol = _protocol(config, loaded, pool, options, device, command)
        protocol["machine"]["pool"] = config.pool
        if config.disturbance is not None:
            chosen = _disturbance(config.disturbance)
            protocol["task"]["disturbance"] = {"type": config.disturbance["type"], **to_mapping(chosen)}
        folder = ResultsFolder.open(
            _output_dir(config, loaded, protocol), protocol, resume=config.resume, overwrite=config.overwrite
        )
        single = _roll_out(config, loaded, pool, folder, device, progress)
        if config.stop is not None:
            stopped = reason_to_stop(_in_order(folder), config.stop)
            write_json(folder.path / "stop.json", {"rule": to_mapping(config.stop), "reason": stopped})
        # Filming may take a while; what was measured is written before it.
        _write_summary(folder, single, _read_summary(folder)["video_problems"])
        problems = _film(config, pool, folder)
    summary = _write_summary(folder, single, problems)
    return Evaluation(folder=folder, summary=summary, report=write_report(folder, summary))


def rewrite_report(path: str | Path) -> Evaluation:
    """Compute the summary and write the report of a results folder again, finished or not.

    Raises:
        ResultsError: The folder is missing or damaged.
        ConfigError: It holds no result yet.
    """
    folder = ResultsFolder.read(path)
    if not folder.results:
        raise ConfigError(f"{path} holds no finished episode yet; run the evaluation first")
    before = _read_summary(folder)
    summary = _write_summary(folder, before["single_latency_ms"], before["video_problems"])
    return Evaluation(folder=folder, summary=summary, report=write_report(folder, summary))


def _roll_out(
    config: EvaluationConfig,
    loaded: LoadedPolicy,
    pool: EnvironmentPool,
    folder: ResultsFolder,
    device: torch.device,
    progress: Progress | None,
) -> list[float]:
    """Run the missing episodes; return the wall times of single policy calls [ms]."""
    missing = folder.missing_seeds()
    total = len(folder.protocol["seeds"])
    if len(missing) < total:
        logger.info("%d of %d episodes are already there", total - len(missing), total)

    def keep(result: EpisodeResult) -> None:
        folder.append(result)
        if progress is not None:
            progress(folder.results, total)

    before = _read_summary(folder)["single_latency_ms"]
    stop = config.stop
    if not missing or (stop is not None and reason_to_stop(_in_order(folder), stop)):
        return before
    rollout = Rollout(
        pool,
        loaded.policy,
        sampler=config.sampler,
        device=device,
        policy_seed=config.policy_seed,
        on_result=keep,
        enough=None if stop is None else lambda: bool(reason_to_stop(_in_order(folder), stop)),
    )
    rollout.run(missing, config.n_envs)
    if config.latency_calls < 1 or rollout.example is None:
        return before
    with evaluating(loaded.policy, device):
        return measure_latency(
            loaded.policy, rollout.example, sampler=config.sampler, device=device, calls=config.latency_calls
        )


def _in_order(folder: ResultsFolder) -> list[bool]:
    """Return the successes of the first seeds of the protocol, up to the first that has no result yet.

    Not those that happen to be there: successful episodes end sooner than others, so early ones flatter.
    """
    there = {result.seed: result.success for result in folder.results}
    seeds: list[int] = folder.protocol["seeds"]
    return [there[seed] for seed in itertools.takewhile(lambda seed: seed in there, seeds)]


def _disturbance(values: Mapping[str, Any] | None) -> Any:
    """Return the disturbance that a configuration names."""
    if values is None:
        return None
    from robot_sim.disturbances import KINDS

    kind = values.get("type")
    if kind not in KINDS:
        raise ConfigError(f"disturbance.type: {unknown_name('disturbance', kind, KINDS)}")
    return from_mapping(KINDS[kind], {k: v for k, v in values.items() if k != "type"}, where="disturbance")


def _film(config: EvaluationConfig, pool: EnvironmentPool, folder: ResultsFolder) -> dict[str, str]:
    """Film what is to be filmed and not there yet; return the problems by seed."""
    chosen = config.video.select(folder.results)
    videos = folder.path / "videos"
    missing = [result for result in chosen if not (videos / f"{result.seed}.mp4").exists()]
    known = _read_summary(folder)["video_problems"]
    if missing:
        logger.info("filming %d episodes", len(missing))
        problems = film_results(pool, missing, videos, config.n_envs)
        known |= {str(seed): problem for seed, problem in problems.items()}
    score_counts = folder.protocol["task"]["score"] == "max_reward"
    tiles = [
        Tile(
            path=videos / f"{result.seed}.mp4",
            label=f"{result.seed}  {result.score:.2f}" if score_counts else f"{result.seed}",
            passed=result.success,
        )
        for result in chosen
        if (videos / f"{result.seed}.mp4").exists()
    ]
    if tiles and (missing or not (videos / "grid.mp4").exists()):
        write_grid(videos / "grid.mp4", tiles, fps=folder.protocol["task"]["fps"])
    return known


def _protocol(
    config: EvaluationConfig,
    loaded: LoadedPolicy,
    pool: EnvironmentPool,
    options: Mapping[str, Any],
    device: torch.device,
    command: Sequence[str],
) -> dict[str, Any]:
    task = pool.task_spec
    first = task.seed_start if config.seed_start is None else config.seed_start
    seeds = range(first, first + config.episodes)
    check_seeds(seeds)
    policy = loaded.config.get("policy", {})
    return build_protocol(
        task=task,
        task_options=options,
        seeds=seeds,
        spec=loaded.spec,
        executor=_described_executor(config),
        sampler=config.sampler or default_sampler(loaded.config),
        policy_seed=config.policy_seed,
        checkpoint={
            "path": str(loaded.path),
            "sha256": loaded.sha256,
            "policy": policy.get("type", type(loaded.policy).__name__),
            "n_parameters": loaded.policy.n_parameters(),
        },
        data={key: value for key, value in loaded.dataset_card.items() if key != "features"},
        n_envs=config.n_envs,
        workers=config.workers,
        device=device,
        command=command,
    )


def _described_executor(config: EvaluationConfig) -> dict[str, Any]:
    """The executor's configuration with every default filled in, the delay it lived with, and retries."""
    values = config.executor
    described = {"type": values["type"], **to_mapping(executors.config(values, where="executor"))}
    if config.inference_delay:
        described["inference_delay"] = config.inference_delay
    for name in ("retry", "resample"):
        if (chosen := getattr(config, name)) is not None:
            described[name] = to_mapping(chosen)
    return described


def _task(task: Any, loaded: LoadedPolicy) -> tuple[str, dict[str, Any]]:
    """Name and options of the task: the one asked for, else that of the training, else that of its data."""
    given = (task, loaded.config.get("task"), loaded.dataset_card.get("task"))
    chosen = next((value for value in given if value is not None), None)
    if isinstance(chosen, str):
        chosen = {"name": chosen}
    if not isinstance(chosen, Mapping) or not isinstance(chosen.get("name"), str):
        raise ConfigError(
            f"task: the checkpoint {loaded.path} does not say which task it was trained for, got {chosen!r}; "
            f"give one, e.g. task=lift"
        )
    options = {key: value for key, value in chosen.items() if key != "name"}
    if any(is_image(name) for name in loaded.spec.observation):
        options["images"] = True  # a policy that sees needs a task that renders
    return chosen["name"], options


def _output_dir(config: EvaluationConfig, loaded: LoadedPolicy, protocol: Mapping[str, Any]) -> Path:
    """The configured folder, else one in the run directory that no other protocol can have."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    identity = json.dumps(select(protocol, IDENTITY), sort_keys=True, default=str)
    mark = hashlib.sha256(identity.encode()).hexdigest()[:8]
    run = loaded.path.parent.parent if loaded.path.parent.name == "checkpoints" else loaded.path
    return run / "eval" / f"{protocol['task']['name']}-{mark}"


def _write_summary(
    folder: ResultsFolder, single_latency_ms: list[float], video_problems: Mapping[str, str]
) -> dict[str, Any]:
    summary = summarise(folder.results, folder.protocol, single_latency_ms=single_latency_ms)
    summary |= {"single_latency_ms": single_latency_ms, "video_problems": dict(video_problems)}
    stop = folder.path / "stop.json"
    if stop.exists():
        summary["stopped"] = json.loads(stop.read_text(encoding="utf-8"))["reason"]
    write_json(folder.path / "summary.json", summary)
    return summary


def _read_summary(folder: ResultsFolder) -> dict[str, Any]:
    """What an earlier summary knows and results do not: single latencies and problems of videos."""
    path = folder.path / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        "single_latency_ms": summary.get("single_latency_ms", []),
        "video_problems": summary.get("video_problems", {}),
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: '{name}' is not a device; expected auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: '{name}' was asked for, but there is no CUDA device; use device=cpu")
    return device
