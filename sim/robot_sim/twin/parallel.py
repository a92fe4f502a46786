"""Many copies of a cell side by side, each with its own parameters: futures of a twin, and rollouts to identify with.

Unlike `robot_sim.mujoco_tasks.simulation.TaskSimulation` alone, a copy has what a cell file says of the real one: the
masses and frictions of its objects, the stiffness of the tool's controller, the latency of commands, and, if wanted,
what its sensors do to observations.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.controllers.osc import osc_torques, rotation_error
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.task import Observation
from robot_sim.twin.cell import Cell
from robot_sim.twin.drive import NULL_STIFFNESS
from robot_sim.twin.geometry import turned
from robot_sim.twin.scene import cell_task, set_object
from robot_sim.vector.physics import BatchedPhysics

HOLD = 5  # physics steps that a torque is held for


class ParallelCell(TaskSimulation):
    """N copies of a cell.

    Args:
        cells: One per copy; they may differ in parameters only. Equal ones share a model.
        sensed: Observe objects as the cell's sensors do: late and noisy. Otherwise as they are.
        threads: Threads of the physics; None uses all cores.
        noise_seed: Of the sensors.

    Attributes:
        cells: One per copy.
        objects: Name -> addresses (7,) of its pose in ``qpos``.
    """

    def __init__(
        self, cells: Sequence[Cell], *, sensed: bool = False, threads: int | None = None, noise_seed: int = 0
    ) -> None:
        task: Any = cell_task(cells[0])
        super().__init__(task, len(cells), threads=0)
        models: dict[str, Any] = {}
        for cell in cells:
            if repr(cell.objects) not in models:
                models[repr(cell.objects)] = copy.copy(task.model)
                for name, known in cell.objects.items():
                    set_object(models[repr(cell.objects)], name, known, cell.table.geom)
        chosen = [models[repr(cell.objects)] for cell in cells]
        self.physics = BatchedPhysics(chosen, len(cells), threads=threads)
        self.cells, self._sensed, self._task = list(cells), sensed, task
        mount, names = task.arm.mount, task.names
        self._qpos, self._qvel = names.qpos(*mount.joints), names.qvel(*mount.joints)
        self._motors, self._site = names.actuators(*mount.actuators), names.site(f"{mount.prefix}tcp")
        self._strength = task.model.actuator_ctrlrange[self._motors, 1]
        self._rest, self._coupled = np.array(mount.arm_model.home), mount.arm_model.decoupled
        stiffness = np.array([[cell.robot.stiffness] for cell in cells])
        self._gains: Any = (stiffness, 2 * np.sqrt(stiffness), NULL_STIFFNESS, 2 * np.sqrt(NULL_STIFFNESS))
        block = HOLD * task.timestep
        self._command_late = np.array([cell.latency.command for cell in cells]) / block
        self._seen_late = np.array([cell.latency.objects for cell in cells]) / block
        self._given = [np.zeros((len(cells), 3))] * (int(np.ceil(self._command_late.max())) + 2)
        self._poses: list[np.ndarray] = []
        self.objects = {name: names.qpos(_joint(task.model, name)) for name in cells[0].objects}
        self._random = np.random.default_rng(noise_seed)
        self.hold()

    def reset(self, indices: Sequence[int] | np.ndarray, seeds: Sequence[int] | np.ndarray) -> None:
        """Start the episodes that `seeds` name in all copies at once."""
        super().reset(indices, seeds)
        self.hold()

    def put(self, qpos: np.ndarray, qvel: np.ndarray, *, ctrl: np.ndarray | None = None) -> None:
        """Put all copies into states, (N, nq) or (nq,) and (N, nv) or (nv,); tools hold where they are."""
        rows = np.arange(self.n_envs)
        self.physics.set_state(rows, qpos=qpos, qvel=qvel)
        if ctrl is not None:
            self.physics.ctrl[:] = ctrl
        self.n_steps[:] = 0
        self.physics.touch()
        self.hold()

    def hold(self, goal: np.ndarray | None = None) -> None:
        """Let the tools be pulled to (N, 3), or where they are, as if that had been commanded long ago."""
        here = self.physics.site_xpos[:, self._site].copy() if goal is None else np.asarray(goal)
        self._given = [here] * len(self._given)
        self._poses = [self._object_poses()] * (int(np.ceil(self._seen_late.max())) + 2)

    def given_before(self, goals: np.ndarray) -> None:
        """Say where tools were pulled to before now: (B, N, 3), newest first, 20 ms apart [m]."""
        wanted = len(self._given)
        self._given = [goals[min(index, len(goals) - 1)] for index in range(wanted)]

    @property
    def joints(self) -> np.ndarray:
        """Positions of the arms' joints (N, n) [rad]."""
        return self.physics.qpos[:, self._qpos].copy()

    def step(self, actions: np.ndarray, *, active: np.ndarray | None = None) -> None:
        """Carry out one action each (N, A) for one control period, after the latency of commands."""
        position, rotation = self._task.tool_goal(np.asarray(actions, dtype=float))
        for _ in range(self._task.n_substeps // HOLD):
            self.pull(position, rotation, active=active)
        self.n_steps += 1
        self.task.after_step(self)

    def pull(self, position: np.ndarray, rotation: np.ndarray, *, active: np.ndarray | None = None) -> None:
        """Command tool positions (N, 3) for `HOLD` physics steps; what acts is what was commanded a latency ago."""
        self._given = [position, *self._given[:-1]]
        self._write(_ago(self._given, self._command_late), rotation)
        self.physics.step(HOLD, active=active)
        if self._sensed:
            self._poses = [self._object_poses(), *self._poses[:-1]]

    def observe(self) -> Observation:
        """Return the low-dimensional features (N, ...), as the sensors give them if `sensed`."""
        if not self._sensed:
            return super().observe()
        kept, qpos = self.physics.save(), self.physics.qpos.copy()
        late = _ago(self._poses, self._seen_late)
        for column, (name, address) in enumerate(self.objects.items()):
            del name
            for row, cell in enumerate(self.cells):
                pose = late[row, 7 * column : 7 * column + 7]
                shift, turn = self._random.standard_normal((2, 3))
                qpos[row, address[:3]] = pose[:3] + cell.noise.position * shift
                whole = pose[3:] / np.linalg.norm(pose[3:])
                qpos[row, address[3:]] = turned(whole, cell.noise.angle * turn)
        self.physics.set_state(np.arange(self.n_envs), qpos=qpos, qvel=self.physics.qvel.copy())
        observation = super().observe()
        self.physics.restore(kept)
        return observation

    def _object_poses(self) -> np.ndarray:
        return np.concatenate([self.physics.qpos[:, address] for address in self.objects.values()], axis=1)

    def _write(self, goal: np.ndarray, rotation: np.ndarray) -> None:
        physics, dofs = self.physics, self._qvel
        turned_to = np.broadcast_to(rotation, (self.n_envs, 3, 3))
        torque = osc_torques(
            jacobian=physics.site_jacobian(self._site)[:, :, dofs],
            mass=physics.mass_matrix[:, dofs[:, None], dofs],
            bias=physics.qfrc_bias[:, dofs],
            velocity=physics.qvel[:, dofs],
            posture=self._rest - physics.qpos[:, self._qpos],
            position_error=goal - physics.site_xpos[:, self._site],
            rotation_error=rotation_error(turned_to, physics.site_xmat[:, self._site]),
            gains=self._gains,
            decoupled=self._coupled,
            ahead=0.5 * (HOLD - 1) * physics.model.opt.timestep,
        )
        physics.ctrl[:, self._motors] = np.clip(torque, -self._strength, self._strength)


def _ago(newest_first: list[np.ndarray], late: np.ndarray) -> np.ndarray:
    """Return what was given (or true) `late` entries ago (N,), between entries by interpolation."""
    stack = np.stack(newest_first)
    whole = np.floor(late).astype(int)
    share = (late - whole)[:, None]
    rows = np.arange(stack.shape[1])
    return (1 - share) * stack[whole, rows] + share * stack[np.minimum(whole + 1, len(stack) - 1), rows]


def _joint(model: Any, body: str) -> str:
    return model.joint(int(model.body_jntadr[model.body(body).id])).name
