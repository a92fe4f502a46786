"""N running episodes of one own MuJoCo task: physics, controller, memory, step counts.

The single environment, the Gymnasium vector environment and Isaac Gym's interface are thin layers over this class.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_sim.mujoco_tasks.late_actions import LateActions
from robot_sim.mujoco_tasks.randomization import Randomization, randomize_physics, sample_look, wear
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.task import Observation
from robot_sim.vector.layout import write_state
from robot_sim.vector.physics import BatchedPhysics, PhysicsSnapshot

MAX_SEED = 2**32


class SimulationError(UserError):
    """A simulation became unstable."""


@dataclass(frozen=True)
class Outcome:
    """What a control step led to.

    Attributes:
        terms: Named reward terms (N,).
        reward: (N,).
        success: (N,) bool.
        diverged: (N,) bool: the physics became unstable; the state is the last stable one.
        truncated: (N,) bool: the step limit is reached.
    """

    terms: dict[str, np.ndarray]
    reward: np.ndarray
    success: np.ndarray
    diverged: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True)
class SimulationSnapshot:
    """All that the future of some environments depends on; see `TaskSimulation.save`."""

    physics: PhysicsSnapshot
    controller: dict[str, np.ndarray]
    memory: dict[str, np.ndarray]
    n_steps: np.ndarray
    late: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """An environment as it is to be drawn; small enough to be sent to another process.

    Attributes:
        state: Its physical state.
        inputs: Its inputs.
        input_spec: What the inputs are, ``mjtState`` bits.
        look: Fields of the model with visuals that are the episode's own.
    """

    state: np.ndarray
    inputs: np.ndarray
    input_spec: int
    look: dict[str, np.ndarray]

    def show(self, model: Any, data: Any, nominal: Any) -> None:
        """Put the view into a model with visuals and its data; `nominal` is the model as it was built."""
        wear(self.look, model, nominal)
        write_state(model, data, self.state, self.inputs, self.input_spec)


class TaskSimulation:
    """See the module's docstring.

    Args:
        task: The task.
        n_envs: Number of environments N.
        threads: Threads of the physics; None uses all cores.
        randomization: What varies between episodes besides their initial states.
        backend: Who steps the physics; see `robot_sim.vector.physics.BatchedPhysics`.

    Attributes:
        task: The task.
        physics: States and what follows from them.
        controller: Turns actions into actuator inputs.
        memory: Name -> (N, ...): what episodes carry besides their physical state.
        n_steps: Control steps since the reset (N,).
    """

    def __init__(
        self,
        task: MujocoTask,
        n_envs: int = 1,
        *,
        threads: int | None = None,
        randomization: Randomization | None = None,
        backend: str = "mujoco",
    ) -> None:
        self.task = task
        self._randomization = randomization or Randomization()
        own = self._randomization.changes_physics
        models = [copy.copy(task.model) for _ in range(n_envs)] if own else task.model
        self.physics = BatchedPhysics(models, n_envs, threads=threads, backend=backend)
        self._looks: list[dict[str, np.ndarray]] = [{}] * n_envs
        self.controller = task.make_controller(task.names, n_envs)
        self.n_steps = np.zeros(n_envs, dtype=np.int64)
        example = task.sample(np.random.default_rng(0))
        self.memory = {
            name: np.repeat(np.asarray(value)[None], n_envs, axis=0) for name, value in example.memory.items()
        }
        hold = self.controller.hold or task.n_substeps
        if task.n_substeps % hold:
            raise ValueError(
                f"a controller that holds for {hold} does not divide {task.n_substeps} physics steps"
            )
        self._hold = hold
        size = len(self.controller.low)
        self._late = LateActions(n_envs, size, self._randomization.latency)

    @property
    def n_envs(self) -> int:
        """Number of environments."""
        return self.physics.n_envs

    def reset(self, indices: Sequence[int] | np.ndarray, seeds: Sequence[int] | np.ndarray) -> None:
        """Start the episodes that `seeds` name in the environments `indices`; the others are left alone."""
        rows = np.asarray(indices, dtype=int)
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._randomize(row, int(seed))
            initial = self.task.sample(np.random.default_rng(int(seed)))
            self.physics.set_state([row], qpos=initial.qpos)
            self.physics.ctrl[row] = initial.ctrl
            if set(initial.memory) != set(self.memory):
                raise ValueError(f"the memory of seed {seed} has other names than that of seed 0")
            for name, value in initial.memory.items():
                self.memory[name][row] = value
        self.n_steps[rows] = 0
        self.physics.touch(rows)
        self.controller.reset(self.physics, rows)

    def step(self, actions: np.ndarray, *, active: np.ndarray | None = None) -> None:
        """Carry out one action each (N, A) for one control period; finite, and clipped to the controller's range.

        Args:
            actions: Physical units; rows of inactive environments are ignored.
            active: (N,) bool: environments that move; None moves all.
        """
        kept = None if active is None or active.all() else self.save(~active)
        controller, physics = self.controller, self.physics
        self._late.give(controller, physics, np.clip(actions, controller.low, controller.high))
        for _ in range(self.task.n_substeps // self._hold):
            controller.write(physics)
            physics.step(self._hold, active=active)
        self.n_steps += 1
        self.task.after_step(self)
        if kept is not None and active is not None:
            self.restore(kept, ~active)

    def observe(self) -> Observation:
        """Return the low-dimensional features (N, ...), in the dtypes of the spec."""
        values = self.task.observe(self)
        features = self.task.spec.observation
        return {name: np.asarray(values[name], dtype=features[name].dtype) for name in features}

    def outcome(self) -> Outcome:
        """Return rewards and endings of the current states."""
        terms = self.task.reward_terms(self)
        return Outcome(
            terms=terms,
            reward=self.task.reward(terms),
            success=np.asarray(self.task.success(self), dtype=bool),
            diverged=self.physics.diverged.copy(),
            truncated=self.n_steps >= self.task.spec.max_steps,
        )

    def view(self, row: int) -> View:
        """Return an environment as it is to be drawn."""
        return View(*self.physics.packed(row), self._looks[row])

    def dress(self, model: Any, data: Any, row: int) -> None:
        """Put an environment into a copy of the task's model with visuals, and its data, to be drawn."""
        wear(self._looks[row], model, self.task.visual_model)
        self.physics.write_to(model, data, row)

    def save(self, indices: np.ndarray | slice = slice(None)) -> SimulationSnapshot:
        """Return a copy of all that the future of these environments depends on."""
        return SimulationSnapshot(
            physics=self.physics.save(indices),
            controller={name: value[indices].copy() for name, value in self.controller.state.items()},
            memory={name: value[indices].copy() for name, value in self.memory.items()},
            n_steps=self.n_steps[indices].copy(),
            late=self._late.save(indices),
        )

    def restore(self, snapshot: SimulationSnapshot, indices: np.ndarray | slice = slice(None)) -> None:
        """Put a snapshot of as many environments back."""
        self.physics.restore(snapshot.physics, indices)
        for name, value in snapshot.controller.items():
            self.controller.state[name][indices] = value
        for name, value in snapshot.memory.items():
            self.memory[name][indices] = value
        self.n_steps[indices] = snapshot.n_steps
        self._late.restore(snapshot.late, indices)

    def _randomize(self, row: int, seed: int) -> None:
        latency = randomize_physics(self._randomization, self.task.model, self.physics.models[row], seed)
        self._late.reset(row, latency)
        if self._randomization.changes_looks:
            self._looks[row] = sample_look(self._randomization, self.task.visual_model, seed)

    def close(self) -> None:
        """End the threads."""
        self.physics.close()
