"""Gymnasium's vector environment over one own MuJoCo task: N episodes, one process, MuJoCo's threads.

Observations and endings equal, bit for bit, those of `gymnasium.vector.SyncVectorEnv` over N single environments of the
task with the same seeds, in every autoreset mode; rewards equal them to rounding, because NumPy's vectorised functions
round by the length of the array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from robot_datasets.features import IMAGE_PREFIX
from robot_sim.actions import ActionError
from robot_sim.mujoco_tasks.randomization import Randomization
from robot_sim.mujoco_tasks.simulation import MAX_SEED, Outcome, SimulationSnapshot, TaskSimulation
from robot_sim.mujoco_tasks.task import MujocoTask
from robot_sim.spaces import observation_space
from robot_sim.task import Observation
from robot_sim.vector.cameras import Cameras, InProcessCameras, Kind


@dataclass(frozen=True)
class VectorSnapshot:
    """All that the future of a vector environment depends on."""

    simulation: SimulationSnapshot
    generators: tuple[dict[str, Any], ...]
    ended: np.ndarray
    observation: Observation


class MujocoVectorEnv(gymnasium.vector.VectorEnv[Observation, np.ndarray, np.ndarray]):
    """See the module's docstring.

    An episode ends with success (terminated), at the step limit (truncated), or when the physics became unstable
    (terminated, with ``info["diverged"]``). Infos: ``is_success`` (N,), ``reward_terms`` (name -> (N,)), ``diverged``
    (N,), ``episode_seed`` (N,), each with Gymnasium's mask of the same name and a leading underscore.

    Args:
        task: The task.
        num_envs: N.
        threads: Threads of the physics; None uses all cores.
        autoreset_mode: When an ended episode is followed by the next; see Gymnasium. With ``DISABLED``, reset ended
            environments with ``options={"reset_mask": mask}``.
        randomization: What varies between episodes besides their initial states.
        cameras: Who draws; None draws in this process, one environment after the other.
        render_size: Side of the frames that `render` returns [px].
        backend: Who steps the physics: ``mujoco`` or ``warp``; see `robot_sim.vector.physics.BatchedPhysics`.

    Attributes:
        simulation: What runs.
    """

    def __init__(
        self,
        task: MujocoTask,
        num_envs: int,
        *,
        threads: int | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        randomization: Randomization | None = None,
        cameras: Cameras | None = None,
        render_size: int = 256,
        backend: str = "mujoco",
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs: expected >= 1, got {num_envs}")
        self.task, self.task_spec = task, task.full_spec
        self.simulation = TaskSimulation(
            task, num_envs, threads=threads, randomization=randomization, backend=backend
        )
        self.num_envs = num_envs
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": round(task.spec.fps),
            "autoreset_mode": autoreset_mode,
        }
        self.render_mode = "rgb_array"
        controller = self.simulation.controller
        low, high = (np.asarray(bound, dtype=np.float32) for bound in (controller.low, controller.high))
        self.single_action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.single_observation_space = observation_space(self.task_spec.observation)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._mode, self._render_size = autoreset_mode, render_size
        self._cameras: Cameras = cameras or InProcessCameras(task)
        self._random = [seeding.np_random()[0] for _ in range(num_envs)]
        self._seeds = np.zeros(num_envs, dtype=np.uint32)
        self._ended = np.zeros(num_envs, dtype=bool)
        self._observation: Observation = {}

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start episodes in all environments, or in those of ``options["reset_mask"]`` (N,) bool.

        Args:
            seed: An integer s starts environment i with episode s + i; a list gives one each; None goes on with
                each environment's own generator.
            options: See above.
        """
        mask = _reset_mask(options, self.num_envs)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        seeds = list(seeds) if seeds is not None else [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} environments")
        self._begin(mask, self._seed(seeds, mask))
        self._refresh(mask)
        return self._copy_observation(), self._infos(self.simulation.outcome(), mask)

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Carry out actions (N, A) for one control period.

        Raises:
            ActionError: Wrong shape, or not finite.
            ValueError: An ended environment was not reset, with autoreset disabled.
        """
        actions = self._checked(actions)
        everything = np.ones(self.num_envs, dtype=bool)
        resetting = self._ended if self._mode == AutoresetMode.NEXT_STEP else ~everything
        if self._mode == AutoresetMode.DISABLED and self._ended.any():
            raise ValueError(
                f"environments {np.flatnonzero(self._ended).tolist()} have ended; reset them first"
            )
        resetting = resetting.copy()
        self.simulation.step(actions, active=~resetting)
        if resetting.any():
            self._begin(resetting, self._seed([None] * self.num_envs, resetting))
        outcome = self.simulation.outcome()
        reward = np.where(resetting, 0.0, outcome.reward)
        terminated = (outcome.success | outcome.diverged) & ~resetting
        truncated = outcome.truncated & ~resetting
        self._ended = terminated | truncated
        infos = self._infos(outcome, everything)
        self._refresh(everything)
        if self._mode == AutoresetMode.SAME_STEP and self._ended.any():
            infos = self._start_over(infos)
        return self._copy_observation(), reward, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """Return one frame (render_size, render_size, 3) uint8 per environment."""
        rows = np.arange(self.num_envs)
        return tuple(self._cameras.draw(self.simulation, rows, self.task.view, self._render_size))

    def draw(self, camera: str, *, size: int, kind: Kind = "rgb") -> np.ndarray:
        """Return what a camera sees in every environment; see `robot_sim.vector.cameras` for the kinds."""
        return self._cameras.draw(self.simulation, np.arange(self.num_envs), camera, size, kind)

    def save_state(self) -> VectorSnapshot:
        """Return all that the future depends on."""
        generators = tuple(dict(random.bit_generator.state) for random in self._random)
        return VectorSnapshot(
            self.simulation.save(), generators, self._ended.copy(), self._copy_observation()
        )

    def restore_state(self, state: VectorSnapshot) -> Observation:
        """Go back to a saved state and return its observation."""
        self.simulation.restore(state.simulation)
        for random, saved in zip(self._random, state.generators, strict=True):
            random.bit_generator.state = saved
        self._ended = state.ended.copy()
        self._observation = {name: value.copy() for name, value in state.observation.items()}
        return self._copy_observation()

    def close_extras(self, **kwargs: Any) -> None:
        """End threads and renderers."""
        del kwargs
        self._cameras.close()
        self.simulation.close()

    def _begin(self, mask: np.ndarray, seeds: np.ndarray) -> None:
        rows = np.flatnonzero(mask)
        self.simulation.reset(rows, seeds)
        self._seeds[rows] = seeds
        self._ended[rows] = False

    def _seed(self, seeds: Sequence[int | None], mask: np.ndarray) -> np.ndarray:
        """Return the next episode's seed of each environment of `mask`; as a single environment chooses it."""
        chosen = []
        for row in np.flatnonzero(mask).tolist():
            seed = seeds[row]
            if seed is not None:
                self._random[row], _ = seeding.np_random(seed)
                chosen.append(seed)
            else:
                chosen.append(int(self._random[row].integers(MAX_SEED)))
        return np.array(chosen, dtype=np.int64)

    def _refresh(self, mask: np.ndarray) -> None:
        """Observe; images are drawn of the environments in `mask` only."""
        self._observation = {**self._observation, **self.simulation.observe()}
        rows = np.flatnonzero(mask)
        for camera in self.task.cameras:
            name, size = IMAGE_PREFIX + camera, self.task.image_size
            if name not in self._observation:
                self._observation[name] = np.zeros((self.num_envs, size, size, 3), dtype=np.uint8)
            self._observation[name][rows] = self._cameras.draw(self.simulation, rows, camera, size)

    def _start_over(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Reset ended environments at once; keep what they ended with as ``final_obs`` and ``final_info``."""
        ended = self._ended.copy()
        final = np.full(self.num_envs, None, dtype=object)
        last = self._copy_observation()
        for row in np.flatnonzero(ended).tolist():
            final[row] = {name: value[row] for name, value in last.items()}
        final_info = {name: value for name, value in infos.items() if not name.startswith("_")}
        final_info = {**final_info, **{f"_{name}": ended for name in final_info}}
        self._begin(ended, self._seed([None] * self.num_envs, ended))
        self._refresh(ended)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        now = self._infos(self.simulation.outcome(), np.ones(self.num_envs, dtype=bool))
        return {
            **now,
            "final_obs": final,
            "_final_obs": ended,
            "final_info": final_info,
            "_final_info": ended,
        }

    def _infos(self, outcome: Outcome, mask: np.ndarray) -> dict[str, Any]:
        values: dict[str, Any] = {
            "is_success": outcome.success,
            "diverged": outcome.diverged,
            "episode_seed": self._seeds.copy(),
        }
        terms = {**outcome.terms, **{f"_{name}": mask for name in outcome.terms}}
        return {**values, "reward_terms": terms, **{f"_{name}": mask for name in (*values, "reward_terms")}}

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        array = np.asarray(actions, dtype=np.float64)
        expected = (self.num_envs, *self.task_spec.action.shape)
        if array.shape != expected:
            raise ActionError(
                f"task '{self.task_spec.name}' got actions of shape {array.shape}, expected {expected}"
            )
        if not np.isfinite(array).all():
            rows = np.flatnonzero(~np.isfinite(array).all(axis=1)).tolist()
            raise ActionError(
                f"task '{self.task_spec.name}' got non-finite actions for environments {rows}; check the policy"
            )
        return array

    def _copy_observation(self) -> Observation:
        return {name: value.copy() for name, value in self._observation.items()}


def _reset_mask(options: dict[str, Any] | None, n_envs: int) -> np.ndarray:
    mask = None if options is None else options.get("reset_mask")
    if mask is None:
        return np.ones(n_envs, dtype=bool)
    mask = np.asarray(mask)
    if mask.shape != (n_envs,) or mask.dtype != bool or not mask.any():
        raise ValueError(f"reset_mask: expected ({n_envs},) bool with one True at least, got {mask!r}")
    return mask
