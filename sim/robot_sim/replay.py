"""Recorded actions carried out once more in simulation, from the recorded start: does the recording hold?

A replay that stays with the record shows that actions, units, rate and initial state are understood; one that leaves it
shows at which step, in which feature and by how much. It needs a simulator that knows the robot, and a recording that
tells where it started:

======================  ==============================================================
recorded by             start
======================  ==============================================================
`robot_sim.generate`    the seed in the episode's name; the expert's disturbance is repeated
PushT demonstrations    ``observation.full_state`` of the first step
robosuite, robomimic    ``observation.simulator_state`` of the first step, in the environment the file describes
======================  ==============================================================

The scene of a robosuite recording is built anew by the robosuite that is installed, because a store does not keep the
file's MJCF: what varies from scene to scene, such as the size of Lift's cube, may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_datasets.features import ACTION, is_image
from robot_datasets.store import EpisodeStore
from robot_sim.registry import TaskError, make_expert, make_task, task_defaults, task_names
from robot_sim.task import Expert, TaskEnv

FULL_STATE = "observation.full_state"
SIMULATOR_STATE = "observation.simulator_state"
"""MuJoCo's flattened state: time [s], joint positions, joint velocities."""

POSITIONS = f"{SIMULATOR_STATE} (positions)"
"""Key of `Replay.errors`: joint positions of robot and objects [m, rad, quaternions]."""

GENERATOR = "robot_sim.generate"
_SEED_MARK = "seed-"
_ENVIRONMENT_OPTIONS = ("robots", "env_configuration", "controller_configs", "gripper_types", "control_freq")
_WITHOUT_IMAGES = {"images": False, "cameras": ()}


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """How the episodes of a store are replayed.

    Attributes:
        task: Registered task name.
        task_options: Options it was recorded with; without images, which are not compared.
        expert_options: Options of the expert whose disturbance is repeated; None if there was none.
    """

    task: str
    task_options: Mapping[str, Any] = field(default_factory=dict)
    expert_options: Mapping[str, Any] | None = None
    start: str = FULL_STATE
    """Feature that tells where an episode started, if no seed does."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How one replay went.

    Attributes:
        episode: Episode number.
        source_id: Its name.
        n_steps: Steps carried out; fewer than recorded if the task ended earlier.
        success: Whether the replay reached the goal.
        recorded_success: Whether the record says it did; None if it does not tell.
        errors: Feature -> largest difference of a component from the record before each step, (n_steps,), in the
            feature's units.
    """

    episode: int
    source_id: str
    n_steps: int
    success: bool
    recorded_success: bool | None
    errors: Mapping[str, np.ndarray]

    def left_at(self, tolerance: float) -> int | None:
        """First step before which some feature differs by more than `tolerance`; None if none ever does."""
        beyond = np.any([errors > tolerance for errors in self.errors.values()], axis=0)
        return int(np.argmax(beyond)) if beyond.any() else None


def plan_replay(store: EpisodeStore, *, task: str | None = None) -> ReplayPlan:
    """Find out how a store is replayed.

    Args:
        store: The store; if it was merged, trimmed and so on, what it was made from counts.
        task: Task to replay in; None goes by who recorded it and by its embodiment.

    Raises:
        TaskError: No task knows this recording.
    """
    record = _generation(store.attributes)
    if record is not None:
        options = record["options"]
        recorded = {k: v for k, v in options["task_options"].items() if k in task_defaults(options["task"])}
        expert = options["expert_options"] if options["expert_options"].get("noise") else None
        return ReplayPlan(
            task=options["task"], task_options=_fast(options["task"], recorded), expert_options=expert
        )
    environment = _environment(store.attributes)
    if environment is not None and SIMULATOR_STATE in store.features and not task:
        known = {key: environment[key] for key in _ENVIRONMENT_OPTIONS if key in environment}
        options = {**known, "horizon": max(1, int(np.max(store.episodes["n_steps"])))}
        name = f"robosuite/{environment['env_name']}"
        return ReplayPlan(task=name, task_options=options, start=SIMULATOR_STATE)
    name = task or (store.embodiment if store.embodiment in task_names() else None)
    if name is None or FULL_STATE not in store.features:
        raise TaskError(
            f"{store.path}: no simulator knows this recording of '{store.embodiment or 'an unknown robot'}'; a store "
            f"made by 'robot-policies generate' can be replayed, a PushT store that has {FULL_STATE}, and a "
            f"robosuite one that has {SIMULATOR_STATE} (convert it with --option states=keep)"
        )
    return ReplayPlan(task=name, task_options=_fast(name, {}))


def replay_episode(
    env: TaskEnv,
    store: EpisodeStore,
    episode: int,
    plan: ReplayPlan,
    *,
    on_frame: Callable[[np.ndarray], None] | None = None,
) -> Replay:
    """Carry out one episode's actions.

    Args:
        env: The plan's task, from `make_environment`.
        store: Where the record is.
        episode: Episode number.
        plan: See `plan_replay`.
        on_frame: Called with a picture (H, W, 3) uint8 of the start and after each step.

    Raises:
        TaskError: The record does not tell where it started, or lacks what the task acts on.
    """
    start, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
    actions = store.column(ACTION)[start:end]
    source_id = store.episodes["source_id"][episode]
    seed = _seed_of(source_id)
    expert: Expert | None = None
    if seed is None:
        state = np.asarray(_column(store, plan.start, source_id)[start], dtype=np.float64)
        observation, _ = env.reset(seed=0, options={"state": state})
    else:
        observation, _ = env.reset(seed=seed)
        if plan.expert_options is not None:
            expert = make_expert(plan.task, **plan.expert_options)
            expert.reset(env, seed)
    compared = [n for n in env.task_spec.observation if n in store.spec.low_dim and not is_image(n)]
    records = {name: store.column(name)[start:end] for name in compared}
    positions: Any = getattr(env.unwrapped, "simulator_positions", None)
    if plan.start == SIMULATOR_STATE:
        records[POSITIONS] = store.column(SIMULATOR_STATE)[start:end, 1 : 1 + len(positions())]
        compared.append(POSITIONS)
    errors: dict[str, list[float]] = {name: [] for name in compared}
    if not compared:
        raise TaskError(
            f"{store.path} has none of the observations of task '{plan.task}'; there is nothing to compare"
        )
    success, n_steps = False, 0
    if on_frame is not None:
        on_frame(_picture(env))
    for action in actions:
        for name in compared:
            now = positions() if name == POSITIONS else observation[name]
            difference = np.abs(now.astype(np.float64) - records[name][n_steps])
            errors[name].append(float(difference.max()))
        if expert is not None:
            expert.act(observation)  # its disturbance depends on what it has drawn before
            action = expert.perturb(action)
        observation, _, terminated, _, info = env.step(action)
        n_steps += 1
        success = success or bool(info["is_success"])
        if on_frame is not None:
            on_frame(_picture(env))
        if terminated:
            break
    recorded = int(store.episodes["success"][episode])
    return Replay(
        episode=episode,
        source_id=source_id,
        n_steps=n_steps,
        success=success,
        recorded_success=None if recorded < 0 else bool(recorded),
        errors={name: np.asarray(values) for name, values in errors.items()},
    )


def make_environment(plan: ReplayPlan) -> TaskEnv:
    """Build the task of a plan; close it afterwards."""
    return make_task(plan.task, **plan.task_options)


def _generation(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how a store, or what it was edited from, was generated."""
    conversion = attributes["conversion"]
    if conversion.get("importer") == GENERATOR:
        return conversion
    found = [_generation(origin) for origin in attributes["source"].get("made_from", ())]
    return next((record for record in found if record is not None), None)


def _environment(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the robosuite environment that a store, or what it was edited from, was recorded in."""
    source = attributes["source"]
    environment = source.get("environment")
    if isinstance(environment, Mapping) and environment.get("env_name"):
        return environment
    found = [_environment(origin) for origin in source.get("made_from", ())]
    return next((record for record in found if record is not None), None)


def _fast(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out images: they cost time and are not compared."""
    known = task_defaults(task)
    return {**options, **{name: value for name, value in _WITHOUT_IMAGES.items() if name in known}}


def _seed_of(source_id: str) -> int | None:
    """``lift/seed-000012`` -> 12."""
    text = source_id.rpartition("/")[2]
    digits = text.removeprefix(_SEED_MARK)
    return int(digits) if digits != text and digits.isdigit() else None


def _column(store: EpisodeStore, name: str, source_id: str) -> np.ndarray:
    if name not in store.spec.low_dim:
        raise TaskError(
            f"episode '{source_id}' does not tell where it started: neither a seed in its name nor {name}"
        )
    return store.column(name)


def _picture(env: TaskEnv) -> np.ndarray:
    return np.asarray(env.render())
