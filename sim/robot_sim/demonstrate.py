"""Episodes of a scripted expert, played one seed after another in worker processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, is_image
from robot_datasets.image_codec import encode_frame
from robot_sim.attempt_pool import AttemptPool
from robot_sim.registry import make_expert, make_task
from robot_sim.task import EpisodeSkippedError, Expert, LabelsSegments, Observation, TaskEnv

_KEPT_READY = 2  # environments that a process keeps built; tasks come one after the other


@dataclass(frozen=True, kw_only=True)
class DemonstrationPlan:
    """What a worker needs to know to play any seed; see `robot_sim.generate.GenerationPlan`.

    Attributes:
        task: Registered task name.
        task_options: Its options.
        expert_options: Options of its expert.
        image_encoding: How frames are stored.
        name: Of the episodes in the store, before their seed; the task's unless given.
    """

    task: str
    task_options: Mapping[str, Any]
    expert_options: Mapping[str, Any]
    image_encoding: str
    name: str = ""

    def source_id(self, seed: int) -> str:
        """Return the name of the episode `seed` in the store."""
        return f"{self.name or self.task}/seed-{seed:06d}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The outcome of one seed.

    Attributes:
        seed: The seed.
        source_id: Name of the episode in the store.
        episode: The demonstration; None if the expert did not succeed.
        failure: Why there is none.
    """

    seed: int
    source_id: str
    episode: Episode | None
    failure: str = ""


class Demonstrator:
    """A task and its expert, ready to play seeds."""

    def __init__(self, plan: DemonstrationPlan) -> None:
        self._plan = plan
        self.env: TaskEnv = make_task(plan.task, **plan.task_options)
        self.expert: Expert = make_expert(plan.task, **plan.expert_options)

    def attempt(self, seed: int) -> Attempt:
        """Play the episode `seed` and return it if it succeeds."""
        env, expert = self.env, self.expert
        source_id = self._plan.source_id(seed)
        observation, _ = env.reset(seed=seed)
        observations: list[dict[str, Any]] = []
        actions: list[np.ndarray] = []
        done = success = False
        try:
            expert.reset(env, seed)
            while not done:
                action = expert.act(observation)
                observations.append(self._kept(observation))
                actions.append(action)
                observation, _, terminated, truncated, info = env.step(expert.perturb(action))
                success = success or info["is_success"]
                done = terminated or truncated
        except EpisodeSkippedError as reason:
            return Attempt(seed=seed, source_id=source_id, episode=None, failure=str(reason))
        if not success:
            return Attempt(
                seed=seed, source_id=source_id, episode=None, failure=f"no success in {len(actions)} steps"
            )
        return Attempt(
            seed=seed, source_id=source_id, episode=self._episode(source_id, observations, actions)
        )

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _kept(self, observation: Observation) -> dict[str, Any]:
        """Encode images at once: raw frames of a long episode would fill the memory."""
        return {
            name: encode_frame(value, self._plan.image_encoding) if is_image(name) else value
            for name, value in observation.items()
        }

    def _episode(
        self, source_id: str, observations: list[dict[str, Any]], actions: list[np.ndarray]
    ) -> Episode:
        spec = self.env.task_spec
        columns: dict[str, list[Any]] = {name: [o[name] for o in observations] for name in spec.observation}
        return Episode(
            source_id=source_id,
            data={name: np.stack(values) for name, values in columns.items() if not is_image(name)}
            | {ACTION: np.stack(actions).astype(spec.action.dtype)},
            images={name: values for name, values in columns.items() if is_image(name)},
            task=self.env.instruction,
            success=True,
            segments=self.expert.segments() if isinstance(self.expert, LabelsSegments) else [],
        )


Job = tuple[DemonstrationPlan, int]


def attempts(jobs: Iterable[Job], *, workers: int) -> Generator[Attempt, None, None]:
    """Yield the attempts at `jobs`, in their order; close the generator to stop.

    Args:
        jobs: What to play, and the seed; possibly without end: workers run only a few ahead of the reader.
        workers: Number of processes; 0 plays in this one.

    Raises:
        WorkerDiedError: Workers die one after the other, e.g. for want of memory. One that dies alone costs
            nothing but time: its episode is tried once more, and set aside if that fails, too.
    """
    if workers == 0:
        try:
            yield from (_attempt(job) for job in jobs)
        finally:
            _close_all()
        return
    pool = AttemptPool(_attempt, _given_up, workers=workers)
    try:
        yield from pool.run(jobs)
    finally:
        pool.close()


_demonstrators: dict[str, Demonstrator] = {}  # of this process, by plan, the most recent last


def _attempt(job: Job) -> Attempt:
    plan, seed = job
    key = repr(plan)
    demonstrator = _demonstrators.pop(key, None)
    if demonstrator is None:
        while len(_demonstrators) >= _KEPT_READY:
            _demonstrators.pop(next(iter(_demonstrators))).close()
        demonstrator = Demonstrator(plan)
    _demonstrators[key] = demonstrator
    return demonstrator.attempt(seed)


def _given_up(job: Job, ending: str) -> Attempt:
    plan, seed = job
    return Attempt(
        seed=seed,
        source_id=plan.source_id(seed),
        episode=None,
        failure=f"its worker process died twice (the second time {ending})",
    )


def _close_all() -> None:
    while _demonstrators:
        _demonstrators.popitem()[1].close()
