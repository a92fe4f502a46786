"""Slots of environments, driven in rounds.

A pool has numbered slots; each holds one environment and runs one episode at a time. In each round some
slots are told to `start` or `advance`, then `collect` returns one answer for each of them. Rounds make the
composition of inference batches, and so the results, independent of timing and of where a slot lives.
"""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from robot_policies.configuration import ConfigError
from robot_policies.evaluation.episode import ChunkRequest, EpisodeOutcome, EpisodeRunner, describe_error
from robot_policies.execution.executor import ChunkExecutor
from robot_policies.spec import PolicySpec, SpecError

if TYPE_CHECKING:
    from robot_policies.evaluation.video import Film
    from robot_sim.task import TaskEnv, TaskSpec

logger = logging.getLogger(__name__)

Command = tuple[str, int, Any]


@dataclass(frozen=True, kw_only=True)
class Filmed:
    """The answer to a `robot_policies.evaluation.video.Film`.

    Attributes:
        problem: Empty, or why there is no video, or why it may not show what was evaluated.
    """

    problem: str = ""


Answer = ChunkRequest | EpisodeOutcome | Filmed


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The worker that held this slot's episode died; the episode has to be started again.

    Attributes:
        reason: How the worker ended.
        culprit: Whether the worker died while it was working on this slot.
    """

    reason: str
    culprit: bool


@dataclass(frozen=True, kw_only=True)
class RegisteredTask:
    """Builds a registered task by name; small enough to be sent to a worker."""

    name: str
    options: Mapping[str, Any]
    disturbance: Any = None  # a `robot_sim.disturbances.Disturbance`

    def __call__(self) -> TaskEnv:
        """Build the environment, disturbed if so chosen."""
        from robot_sim.registry import make_task

        env = make_task(self.name, **self.options)
        if self.disturbance is None:
            return env
        from robot_sim.disturbances import DisturbedTask

        return DisturbedTask(env, self.disturbance)


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """What every environment of an evaluation needs to know; sent once to each worker.

    Attributes:
        make_env: Builds an environment; a module-level callable or a `RegisteredTask`.
        spec: Features and horizons of the policy.
        executor: A fresh executor; each environment gets a copy. It is sent as an object, so that a worker
            needs no registration of executors that are not ours.
        inference_delay: Steps that the environment goes on while a chunk is computed.
    """

    make_env: Callable[[], TaskEnv]
    spec: PolicySpec
    executor: ChunkExecutor
    inference_delay: int = 0

    def __post_init__(self) -> None:
        if self.inference_delay < 0:
            raise ConfigError(f"inference_delay: expected >= 0, got {self.inference_delay}")
        self.executor.check_delay(self.inference_delay)


class EnvironmentPool(Protocol):
    """Slots with one environment each, driven in rounds."""

    task_spec: TaskSpec

    def start(self, slot: int, seed: int) -> None:
        """Begin the episode `seed` in this slot."""
        ...

    def advance(self, slot: int, chunk: np.ndarray) -> None:
        """Give the slot's episode the chunk (T_p, A) that it asked for."""
        ...

    def film(self, slot: int, film: Film) -> None:
        """Replay an episode in this slot and film it."""
        ...

    def collect(self) -> dict[int, Answer | Lost]:
        """Wait until every slot that was given something to do has answered; sorted by slot."""
        ...

    def close(self) -> None:
        """End all environments and processes."""
        ...


class SlotHost:
    """Runs the slots of one process. An exception ends the episode, not the process."""

    def __init__(self, plan: RolloutPlan) -> None:
        self._plan = plan
        # The first environment is built at once: the task says what it is, or why it cannot be built.
        self._spare: TaskEnv | None = plan.make_env()
        self.task_spec: TaskSpec = self._spare.task_spec
        unstated = [name for name in plan.spec.goal if name not in self.task_spec.goal]
        if unstated and not plan.spec.either_goal:
            raise SpecError(
                f"the policy wants a goal in terms of '{unstated[0]}', but the task '{self.task_spec.name}' states "
                f"its goal in {', '.join(self.task_spec.goal) or 'no feature'}; choose another task or policy"
            )
        self._envs: dict[int, TaskEnv] = {}
        self._runners: dict[int, EpisodeRunner] = {}

    def handle(self, command: Command) -> Answer:
        """Carry out a command and return its answer."""
        verb, slot, argument = command
        try:
            if verb == "start":
                return self._runner(slot).start(argument)
            if verb == "film":
                return self._film(slot, argument)
            return self._runners[slot].advance(argument)
        # The boundary: whatever a simulator raises is a result, not a crash.
        except Exception as error:  # noqa: BLE001
            if verb == "film":
                self._discard(slot)
                return Filmed(problem=describe_error(error))
            return self._failed(slot, error)

    def close(self) -> None:
        """Close all environments."""
        for slot in list(self._envs):
            self._discard(slot)
        if self._spare is not None:
            self._spare.close()

    def _runner(self, slot: int) -> EpisodeRunner:
        if slot not in self._runners:
            env = self._spare if self._spare is not None else self._plan.make_env()
            self._spare = None
            self._envs[slot] = env
            self._runners[slot] = EpisodeRunner(
                env,
                self._plan.spec,
                copy.deepcopy(self._plan.executor),
                inference_delay=self._plan.inference_delay,
            )
        return self._runners[slot]

    def _film(self, slot: int, film: Film) -> Filmed:
        from robot_policies.evaluation.video import film_episode

        self._runner(slot)
        return Filmed(problem=film_episode(self._envs[slot], film))

    def _failed(self, slot: int, error: Exception) -> EpisodeOutcome:
        details = "".join(traceback.format_exception(error))
        runner = self._runners.get(slot)
        if runner is None:
            nothing = np.empty((0, self._plan.spec.action_dim), dtype=np.float32)
            outcome = EpisodeOutcome(
                actions=nothing,
                rewards=np.empty(0),
                failure=describe_error(error),
                failure_details=details,
            )
        else:
            outcome = runner.outcome(failure=describe_error(error), failure_details=details)
        self._discard(slot)
        return outcome

    def _discard(self, slot: int) -> None:
        """Close the slot's environment: after an exception its state cannot be trusted."""
        self._runners.pop(slot, None)
        env = self._envs.pop(slot, None)
        if env is None:
            return
        try:
            env.close()
        except Exception:  # a broken environment may also fail to close
            logger.warning("environment of slot %d did not close cleanly", slot, exc_info=True)


class LocalPool:
    """All slots in this process: for debugging, and for one core."""

    def __init__(self, plan: RolloutPlan) -> None:
        self._host = SlotHost(plan)
        self.task_spec = self._host.task_spec
        self._answers: dict[int, Answer | Lost] = {}

    def start(self, slot: int, seed: int) -> None:
        """Begin the episode `seed` in this slot."""
        self._answers[slot] = self._host.handle(("start", slot, seed))

    def advance(self, slot: int, chunk: np.ndarray) -> None:
        """Give the slot's episode its chunk."""
        self._answers[slot] = self._host.handle(("advance", slot, chunk))

    def film(self, slot: int, film: Film) -> None:
        """Replay an episode in this slot and film it."""
        self._answers[slot] = self._host.handle(("film", slot, film))

    def collect(self) -> dict[int, Answer | Lost]:
        """Return the answers of this round."""
        answers, self._answers = self._answers, {}
        return dict(sorted(answers.items()))

    def close(self) -> None:
        """Close all environments."""
        self._host.close()
