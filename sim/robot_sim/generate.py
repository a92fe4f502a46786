"""Demonstrations from a scripted expert: episodes in worker processes, written in seed order.

Seeds are tried one after another from `GenerationPlan.seed_start`; those where the expert succeeds become
episodes, the others are set aside and listed in the store. Which seeds those are, and every byte of the
store, depend on the plan alone: not on the number of workers, and not on interruptions.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robot_datasets.features import is_image
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_sim import __version__
from robot_sim.demonstrate import Attempt, DemonstrationPlan, attempts
from robot_sim.registry import (
    TaskError,
    expert_defaults,
    make_expert,
    make_task,
    simulator_versions,
    task_defaults,
)
from robot_sim.task import TaskSpec

logger = logging.getLogger(__name__)

#: Give up when this many seeds in a row fail: the expert does not fit the task's options.
MAX_FAILURES_IN_A_ROW = 25


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """What to generate.

    Attributes:
        task: Registered task name.
        task_options: Options of the task, e.g. ``{"images": True}``.
        expert_options: Options of its expert, e.g. ``{"noise": 0.3}``.
        episodes: Number of successful demonstrations wanted.
        seed_start: First seed tried.
        image_encoding: ``"png"``, ``"jpeg"`` or ``"raw"``.
    """

    task: str
    task_options: Mapping[str, Any] = field(default_factory=dict)
    expert_options: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 100
    seed_start: int = 0
    image_encoding: str = "png"

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise TaskError(f"episodes is {self.episodes}, expected at least 1")
        if self.seed_start < 0:
            raise TaskError(f"seed_start is {self.seed_start}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class GenerationProgress:
    """How far a generation is; `done` and `failed` count earlier, interrupted runs too."""

    done: int
    total: int
    failed: int
    n_steps: int


@dataclass(frozen=True, kw_only=True)
class GenerationReport:
    """What a generation did.

    Attributes:
        store: The store's path.
        task: Task name.
        n_episodes: Episodes in the store.
        n_steps: Steps in the store.
        n_resumed: Episodes that an earlier, interrupted run had already written.
        unchanged: The store was there already, made from the same plan.
        failed: Source id -> reason of the seeds where the expert did not succeed.
        fingerprint: Fingerprint of the store.
        seconds: Wall time of this run [s].
    """

    store: str
    task: str
    n_episodes: int
    n_steps: int
    n_resumed: int
    unchanged: bool
    failed: Mapping[str, str]
    fingerprint: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


def generate(
    plan: GenerationPlan,
    target: str | Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[GenerationProgress], None] | None = None,
) -> GenerationReport:
    """Write `plan.episodes` successful demonstrations to an episode store at `target`.

    An interrupted run goes on where it stopped when called again with the same plan. If `target` already
    holds the same plan's store, nothing is done.

    Args:
        plan: What to generate.
        target: Where the store shall appear.
        workers: Number of processes; 0 runs in this one.
        overwrite: Replace what is at `target`.
        progress: Called after every episode.

    Raises:
        TaskError: Unknown task or option, a task without an expert, an expert that keeps failing, or so many
            episodes that the seeds would run into the held-out ones.
        DatasetError: `target` holds something else, or cannot be written.
    """
    began = time.monotonic()
    spec = _check(plan)
    source, conversion = {"name": f"{plan.task} (scripted expert)"}, _conversion_record(plan)
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
        embodiment=spec.embodiment,
        source=source,
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


def _check(plan: GenerationPlan) -> TaskSpec:
    """Build everything once, so that bad options are refused before a worker or a file exists."""
    make_expert(plan.task, **plan.expert_options)
    env = make_task(plan.task, **plan.task_options)
    try:
        return env.task_spec
    finally:
        env.close()


def _conversion_record(plan: GenerationPlan) -> dict[str, Any]:
    """Everything the bytes of the store depend on, so that a store made otherwise is told apart."""
    options = asdict(plan) | {
        "task_options": task_defaults(plan.task) | dict(plan.task_options),
        "expert_options": expert_defaults(plan.task) | dict(plan.expert_options),
    }
    record = {
        "importer": "robot_sim.generate",
        "version": __version__,
        "options": options,
        "simulator": simulator_versions(plan.task),
    }
    return json.loads(json.dumps(record))  # as a store gives it back: lists for tuples


def _write_all(
    plan: GenerationPlan,
    spec: TaskSpec,
    writer: EpisodeStoreWriter,
    workers: int,
    progress: Callable[[GenerationProgress], None] | None,
) -> None:
    demonstration = DemonstrationPlan(
        task=plan.task,
        task_options=dict(plan.task_options),
        expert_options=dict(plan.expert_options),
        image_encoding=plan.image_encoding,
    )
    failures = 0
    for attempt in _new_attempts(plan, spec, writer, demonstration, workers):
        if attempt.episode is None:
            failures += 1
            logger.info("%s set aside: %s", attempt.source_id, attempt.failure)
            if failures >= MAX_FAILURES_IN_A_ROW:
                raise TaskError(
                    f"the expert of task '{plan.task}' failed {failures} times in a row (last: {attempt.failure}); "
                    "check its options and the task's"
                )
            writer.quarantine(attempt.source_id, attempt.failure)
        else:
            failures = 0
            writer.add_episode(attempt.episode)
        if progress is not None:
            progress(
                GenerationProgress(
                    done=writer.n_episodes,
                    total=plan.episodes,
                    failed=len(writer.quarantined),
                    n_steps=writer.n_steps,
                )
            )


def _new_attempts(
    plan: GenerationPlan,
    spec: TaskSpec,
    writer: EpisodeStoreWriter,
    demonstration: DemonstrationPlan,
    workers: int,
) -> Iterator[Attempt]:
    """Yield attempts at seeds not tried yet, in order, until the writer has enough episodes."""
    # Every seed from seed_start on is either written or set aside, so their number says where to go on.
    tried = writer.n_episodes + len(writer.quarantined)
    if writer.n_episodes >= plan.episodes:
        return
    seeds = itertools.count(plan.seed_start + tried)
    results = attempts(((demonstration, seed) for seed in seeds), workers=workers)
    try:
        for attempt in results:
            if plan.seed_start < spec.seed_start <= attempt.seed:
                raise TaskError(
                    f"seed {attempt.seed} is held out for evaluation (task '{plan.task}' evaluates from "
                    f"{spec.seed_start}); ask for fewer episodes or lower seed_start={plan.seed_start}"
                )
            yield attempt
            if writer.n_episodes >= plan.episodes:
                return
    finally:
        results.close()


def _report(
    plan: GenerationPlan, store: EpisodeStore, began: float, *, n_resumed: int, unchanged: bool
) -> GenerationReport:
    return GenerationReport(
        store=store.path,
        task=plan.task,
        n_episodes=store.n_episodes,
        n_steps=store.n_steps,
        n_resumed=n_resumed,
        unchanged=unchanged,
        failed=store.quarantined,
        fingerprint=store.fingerprint,
        seconds=time.monotonic() - began,
    )
