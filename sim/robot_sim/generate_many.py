"""Demonstrations of many tasks by many arms in one store: every task with every arm is a cell of the plan.

Every cell has its own seeds from `ManyPlan.seed_start` on. In rounds, each cell tries as many as it lacks episodes;
what a round plays is fixed before it begins, so the bytes of the store depend on the plan alone: not on the number of
workers, and not on interruptions.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robot_datasets.features import is_image
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_sim import __version__
from robot_sim.demonstrate import Attempt, DemonstrationPlan, Job, attempts
from robot_sim.generate import (
    MAX_FAILURES_IN_A_ROW,
    GenerationProgress,
    GenerationReport,
)
from robot_sim.registry import TaskError, make_expert, make_task, simulator_versions, task_defaults
from robot_sim.task import TaskSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One task with one arm.

    Attributes:
        task: Registered name, or ``<family>/<id>``.
        options: Options of the task, e.g. ``{"arm": "ur5e"}``.
        name: Of its episodes in the store, before their seed.
    """

    task: str
    options: Mapping[str, Any]
    name: str


@dataclass(frozen=True, kw_only=True)
class ManyPlan:
    """What to generate.

    Attributes:
        tasks: Names of tasks that have the same features, e.g. ``("compose/open_drawer", ...)``.
        arms: Values of the tasks' option `arm`, ``"panda"`` or with a gripper ``"panda+robotiq_85"``.
        task_options: Further options of all tasks.
        expert_options: Options of all experts.
        episodes: Successful demonstrations wanted in all; every cell gets as many, the first ones one more.
        seed_start: First seed tried in every cell.
        image_encoding: ``"png"``, ``"jpeg"`` or ``"raw"``.
    """

    tasks: Sequence[str]
    arms: Sequence[str]
    task_options: Mapping[str, Any] = field(default_factory=dict)
    expert_options: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 100
    seed_start: int = 0
    image_encoding: str = "png"

    def __post_init__(self) -> None:
        cells = len(self.tasks) * len(self.arms)
        if not cells:
            raise TaskError("no tasks or no arms; give tasks=[compose/open_drawer,...] arms=[panda,ur5e]")
        for kind, values in (("tasks", self.tasks), ("arms", self.arms)):
            if len(set(values)) != len(values):
                raise TaskError(f"{kind} names something twice: {', '.join(values)}")
        if self.episodes < cells:
            raise TaskError(
                f"episodes is {self.episodes}, expected at least one for each of {len(self.tasks)} tasks with "
                f"{len(self.arms)} arms: {cells}"
            )
        if self.seed_start < 0:
            raise TaskError(f"seed_start is {self.seed_start}, expected 0 or more")

    def cells(self) -> list[Cell]:
        """Return every task with every arm."""
        return [
            Cell(task=task, options={**self.task_options, **_arm_options(arm)}, name=f"{task}/{arm}")
            for task, arm in itertools.product(self.tasks, self.arms)
        ]

    def wanted(self) -> list[int]:
        """Return how many episodes each cell gets."""
        count = len(self.tasks) * len(self.arms)
        share, more = divmod(self.episodes, count)
        return [share + (index < more) for index in range(count)]


def _arm_options(arm: str) -> dict[str, str]:
    name, _, gripper = arm.partition("+")
    return {"arm": name, **({"gripper": gripper} if gripper else {})}


def generate_many(
    plan: ManyPlan,
    target: str | Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[GenerationProgress], None] | None = None,
) -> GenerationReport:
    """Write successful demonstrations of every task with every arm to an episode store at `target`.

    Args:
        plan: What to generate.
        target: Where the store shall appear.
        workers: Number of processes; 0 runs in this one.
        overwrite: Replace what is at `target`.
        progress: Called after every episode.

    Raises:
        TaskError: Unknown task, option or arm, tasks with different features, or an expert that keeps failing.
        DatasetError: `target` holds something else, or cannot be written.
    """
    began = time.monotonic()
    spec = _check(plan)
    conversion = _conversion_record(plan)
    if Path(target).exists() and not overwrite:
        store = EpisodeStore.open(target)
        if store.attributes["conversion"] != conversion:
            raise TaskError(
                f"{target} already holds a store made in another way; choose another output or pass overwrite=true"
            )
        return _report(plan, store, began, n_resumed=store.n_episodes, unchanged=True)
    with EpisodeStoreWriter(
        target,
        features=spec.features,
        fps=spec.fps,
        embodiment="+".join(plan.arms),
        source={"name": f"{len(plan.tasks)} tasks, {len(plan.arms)} arms (scripted experts)"},
        conversion=conversion,
        image_encodings={name: plan.image_encoding for name in spec.observation if is_image(name)},
        overwrite=overwrite,
    ) as writer:
        n_resumed = writer.n_episodes
        try:
            _write_all(plan, spec, writer, workers, progress)
        except BaseException:
            if writer.n_episodes == 0:  # nothing to go on with
                writer.discard()
            raise
        writer.publish()
    return _report(plan, EpisodeStore.open(target), began, n_resumed=n_resumed, unchanged=False)


def _check(plan: ManyPlan) -> TaskSpec:
    """Build every task once with its first arm, and every arm once, so that nothing bad is found out late."""
    cells = plan.cells()
    seen = [cell for i, cell in enumerate(cells) if i < len(plan.arms) or i % len(plan.arms) == 0]
    first: TaskSpec | None = None
    for cell in seen:
        make_expert(cell.task, **plan.expert_options)
        env = make_task(cell.task, **cell.options)
        spec = env.task_spec
        env.close()
        first = first or spec
        if spec.features != first.features or spec.fps != first.fps:
            raise TaskError(
                f"task '{cell.task}' has other features or another rate than '{cells[0].task}'; one store holds tasks "
                "with the same ones, e.g. compose/..."
            )
    assert first is not None, "a plan has a cell"
    return first


def _conversion_record(plan: ManyPlan) -> dict[str, Any]:
    options = asdict(plan) | {
        "tasks": list(plan.tasks),
        "arms": list(plan.arms),
        "task_options": task_defaults(plan.tasks[0]) | dict(plan.task_options),
    }
    record = {
        "importer": "robot_sim.generate_many",
        "version": __version__,
        "options": options,
        "simulator": simulator_versions(plan.tasks[0]),
    }
    return json.loads(json.dumps(record))  # as a store gives it back: lists for tuples


def _write_all(
    plan: ManyPlan,
    spec: TaskSpec,
    writer: EpisodeStoreWriter,
    workers: int,
    progress: Callable[[GenerationProgress], None] | None,
) -> None:
    cells = plan.cells()
    written, tried, in_a_row = ([0] * len(cells) for _ in range(3))
    while True:
        jobs: list[tuple[int, Job]] = []  # one round: what is still missing, should all of it succeed
        for index, wanted in enumerate(plan.wanted()):
            first = plan.seed_start + tried[index]
            seeds = range(first, first + wanted - written[index])
            if plan.seed_start < spec.seed_start < seeds.stop:
                raise TaskError(
                    f"seed {spec.seed_start} of '{cells[index].name}' is held out for evaluation; "
                    "ask for fewer episodes"
                )
            jobs += [(index, (_demonstration(plan, cells[index]), seed)) for seed in seeds]
            tried[index] += len(seeds)
        if not jobs:
            return
        for index, source_id, attempt in _outcomes(jobs, writer, workers):
            failure = writer.quarantined.get(source_id) if attempt is None else attempt.failure
            if attempt is not None and attempt.episode is not None:
                writer.add_episode(attempt.episode)
            elif attempt is not None:
                logger.info("%s set aside: %s", source_id, failure)
                writer.quarantine(source_id, attempt.failure)
            in_a_row[index] = in_a_row[index] + 1 if failure else 0
            written[index] += not failure
            if in_a_row[index] >= MAX_FAILURES_IN_A_ROW:
                raise TaskError(
                    f"the expert of '{cells[index].name}' failed {in_a_row[index]} times in a row (last: {failure}); "
                    "leave this task or arm out, or check their options"
                )
            if progress is not None and attempt is not None:
                progress(
                    GenerationProgress(
                        done=writer.n_episodes,
                        total=plan.episodes,
                        failed=len(writer.quarantined),
                        n_steps=writer.n_steps,
                    )
                )


def _outcomes(
    jobs: list[tuple[int, Job]], writer: EpisodeStoreWriter, workers: int
) -> Iterator[tuple[int, str, Attempt | None]]:
    """Yield cell, name and attempt of every job in order; None for one that an earlier run has dealt with."""

    def is_known(job: Job) -> bool:
        name = job[0].source_id(job[1])
        return name in writer.done or name in writer.quarantined

    known = [is_known(job) for _, job in jobs]
    results = attempts(
        [job for (_, job), there in zip(jobs, known, strict=True) if not there], workers=workers
    )
    try:
        for (index, (plan, seed)), there in zip(jobs, known, strict=True):
            yield index, plan.source_id(seed), None if there else next(results)
    finally:
        results.close()


def _demonstration(plan: ManyPlan, cell: Cell) -> DemonstrationPlan:
    return DemonstrationPlan(
        task=cell.task,
        task_options=dict(cell.options),
        expert_options=dict(plan.expert_options),
        image_encoding=plan.image_encoding,
        name=cell.name,
    )


def _report(
    plan: ManyPlan, store: EpisodeStore, began: float, *, n_resumed: int, unchanged: bool
) -> GenerationReport:
    return GenerationReport(
        store=store.path,
        task=f"{len(plan.tasks)} tasks with {len(plan.arms)} arms",
        n_episodes=store.n_episodes,
        n_steps=store.n_steps,
        n_resumed=n_resumed,
        unchanged=unchanged,
        failed=store.quarantined,
        fingerprint=store.fingerprint,
        seconds=time.monotonic() - began,
    )
