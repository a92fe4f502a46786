"""``robot-policies generate``: record a scripted expert in simulation into an episode store."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robot_policies.cli.hydra_app import compose_config
from robot_policies.cli.progress import progress_bar
from robot_policies.configuration import ConfigError, from_mapping

if TYPE_CHECKING:
    from robot_sim.generate import GenerationPlan, GenerationProgress, GenerationReport
    from robot_sim.generate_many import ManyPlan

EXAMPLES = (
    "task=lift episodes=100 output=runs/lift/demos.zarr",
    "task=lift task.images=true task.cameras=[agentview,wrist] episodes=500 output=runs/lift/images.zarr",
    "task=lift noise=0 seed_start=1000 episodes=20 output=runs/lift/clean.zarr",
    "task=metaworld/drawer-open-v3 episodes=50 output=runs/drawer/demos.zarr",
    "tasks=[compose/open_drawer,compose/close_drawer] arms=[panda,ur5e] episodes=200 output=runs/drawers.zarr",
    "tasks=all arms=[panda,ur5e] recovery=0.3 episodes=1000 output=runs/all.zarr",
)
_INTERRUPTED = 130
_FAILURES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The configuration of the command, see ``generate.yaml``."""

    task: Mapping[str, Any]
    output: str
    episodes: int
    seed_start: int
    tasks: Sequence[str] | str
    arms: Sequence[str]
    recovery: float | None
    noise: float | None
    image_encoding: str
    workers: int | None
    overwrite: bool

    def plan(self) -> GenerationPlan | ManyPlan:
        """Return what `robot_sim.generate` or `robot_sim.generate_many` needs to know."""
        from robot_sim.generate import GenerationPlan
        from robot_sim.generate_many import ManyPlan

        options = dict(self.task)
        name = options.pop("name", None)
        expert = {"noise": self.noise, "recovery": self.recovery}
        expert_options = {key: value for key, value in expert.items() if value is not None}
        if self.tasks:
            return ManyPlan(
                tasks=_all_or(self.tasks),
                arms=tuple(self.arms),
                expert_options=expert_options,
                episodes=self.episodes,
                seed_start=self.seed_start,
                image_encoding=self.image_encoding,
            )
        if not isinstance(name, str):
            raise ConfigError("task.name: missing; choose a task, e.g. task=lift")
        return GenerationPlan(
            task=name,
            task_options=options,
            expert_options=expert_options,
            episodes=self.episodes,
            seed_start=self.seed_start,
            image_encoding=self.image_encoding,
        )


def _all_or(tasks: Sequence[str] | str) -> tuple[str, ...]:
    if isinstance(tasks, str):
        if tasks != "all":
            raise ConfigError(f"tasks: '{tasks}', expected a list, or 'all' for every composition")
        from robot_sim.registry import family_task_names

        return tuple(family_task_names("compose"))
    return tuple(str(task) for task in tasks)


def run(argv: Sequence[str]) -> int:
    """Generate as configured by Hydra overrides; returns the exit status."""
    values = compose_config("generate", list(argv), examples=EXAMPLES)
    config = from_mapping(GenerateConfig, values, where="generate")
    if config.workers is not None and config.workers < 0:
        raise ConfigError(f"workers: {config.workers}, expected 0 or more, or null for one per core")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Imported here so that --help does not wait for the simulators.
    from robot_sim.generate import generate
    from robot_sim.generate_many import ManyPlan, generate_many

    plan = config.plan()
    done = 0
    try:
        with progress_bar("episodes") as update:

            def report_progress(progress: GenerationProgress) -> None:
                nonlocal done
                done = progress.done
                note = f", {progress.failed} failed" if progress.failed else ""
                update(progress.done, progress.total, f"{progress.n_steps:,} steps{note}")

            workers = _cores(config.episodes) if config.workers is None else config.workers
            how: Any = {"workers": workers, "overwrite": config.overwrite, "progress": report_progress}
            report = (
                generate_many(plan, config.output, **how)
                if isinstance(plan, ManyPlan)
                else generate(plan, config.output, **how)
            )
    except KeyboardInterrupt:
        print(f"interrupted; {done} episodes are safe, run the same command again to go on", file=sys.stderr)
        return _INTERRUPTED
    _print_report(report)
    return 0


def _cores(episodes: int) -> int:
    """One worker per usable core, but none for fewer than four episodes each: starting one takes seconds."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, episodes // 4))


def _print_report(report: GenerationReport) -> None:
    for source_id, reason in list(report.failed.items())[:_FAILURES_SHOWN]:
        print(f"  set aside {source_id}: {reason}")
    if len(report.failed) > _FAILURES_SHOWN:
        print(
            f"  ... and {len(report.failed) - _FAILURES_SHOWN} more; robot-policies inspect --json lists them"
        )
    unreachable = sum(reason.startswith("unreachable") for reason in report.failed.values())
    if unreachable:
        print(f"  {unreachable} of them for a pose out of the arm's reach")
    if report.unchanged:
        what = "is up to date, nothing to do: same task, same options"
    else:
        resumed = f", {report.n_resumed} of them by an earlier run" if report.n_resumed else ""
        what = f"written in {report.seconds:.1f} s{resumed}"
    tried = report.n_episodes + len(report.failed)
    print(
        f"{report.store}: {report.n_episodes} episodes, {report.n_steps:,} steps; the expert of '{report.task}' "
        f"succeeded on {report.n_episodes} of {tried} seeds; {what}"
    )
