"""A surrogate cell: a second simulation with parameters of its own, that speaks only as a robot would.

It is not a robot and nothing found with it is thereby true of one. What it offers is what a cell offers: joint states
and object poses with stamps, late, noisy and sometimes missing; and it takes commands, late. `truth` exists for
scoring alone; `move_by_hand` and `hide` are what people do to a cell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_sim.engine import mujoco
from robot_sim.twin.cell import Cell
from robot_sim.twin.drive import JointTracking, ToolPull
from robot_sim.twin.geometry import turned
from robot_sim.twin.observed import ObservedJoints, ObservedPose, ObservedState
from robot_sim.twin.scene import CellScene

JointPath = Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]
STEP_NS = 4_000_000
_HOLD = 5  # physics steps that the tool's controller holds a torque for


@dataclass(frozen=True, kw_only=True)
class SurrogateConfig:
    """What the surrogate is, and its twin is not told.

    Attributes:
        friction: Times the cell file's sliding friction.
        mass: Times the cell file's masses.
        stiffness: Times the cell file's stiffness of the tool's controller.
        command_latency: Between a command and the moment the arm begins to follow it [s].
        joint_rate: Joint states [Hz]; they arrive at once.
        joint_noise: Standard deviation of joint positions [rad].
        object_rate: Poses of objects [Hz].
        object_latency: Between the moment a pose is true and its arrival [s].
        position_noise: Standard deviation per axis [m].
        angle_noise: Standard deviation per axis [rad].
        dropout: Share of the poses that never arrive.
    """

    friction: float = 1.8
    mass: float = 1.4
    stiffness: float = 0.75
    command_latency: float = 0.04
    joint_rate: float = 125.0
    joint_noise: float = 0.0005
    object_rate: float = 30.0
    object_latency: float = 0.08
    position_noise: float = 0.003
    angle_noise: float = 0.03
    dropout: float = 0.0

    def __post_init__(self) -> None:
        positive = ("friction", "mass", "stiffness", "joint_rate", "object_rate")
        rest = ("command_latency", "object_latency", "position_noise", "angle_noise", "joint_noise")
        bad = [n for n in positive if not getattr(self, n) > 0] + [
            n for n in rest if not getattr(self, n) >= 0
        ]
        if bad or not 0 <= self.dropout < 1:
            raise ConfigError(f"surrogate.{(bad or ['dropout'])[0]}: out of range")


def hidden_cell(cell: Cell, config: SurrogateConfig) -> Cell:
    """Return the cell as it really is, in this surrogate's world."""
    objects = {
        name: replace(known, mass=known.mass * config.mass, friction=known.friction * config.friction)
        for name, known in cell.objects.items()
    }
    robot = replace(cell.robot, stiffness=cell.robot.stiffness * config.stiffness)
    return replace(cell, objects=objects, robot=robot)


class SurrogateCell:
    """See the module's docstring.

    Args:
        cell: The cell file that its twin knows.
        config: What is different.

    Attributes:
        scene: The simulation; scoring and tests only.
        time_ns: Its clock [ns].
    """

    def __init__(self, cell: Cell, config: SurrogateConfig | None = None) -> None:
        self.config = config or SurrogateConfig()
        self._hidden = hidden_cell(cell, self.config)
        self.scene = CellScene(self._hidden, timestep=STEP_NS * 1e-9)
        self.start(0)

    def start(self, seed: int) -> None:
        """Put everything where the task's episode `seed` starts; the seed fixes the noise, too."""
        self._random = np.random.default_rng([seed, 7])
        self.scene.start(seed)
        self.time_ns, self._hidden_until_ns = 0, -1
        self._next_joints_ns, self._next_objects_ns = 0, 0
        self._under_way: deque[tuple[int, ObservedState]] = deque()
        self._commands: deque[tuple[int, np.ndarray]] = deque()
        self._pull = ToolPull(self.scene, stiffness=self._hidden.robot.stiffness, hold=_HOLD)
        self._tracking, self._path = JointTracking(1600.0), None

    # --- what a robot takes -----------------------------------------------------------------------------------

    def command(self, action: np.ndarray) -> None:
        """Take an action of the task; its controller pulls the tool there, after the command latency."""
        self._path = None
        self._commands.append((self.time_ns + round(1e9 * self.config.command_latency), np.array(action)))

    def follow(self, path: JointPath) -> None:
        """Follow a joint motion: time [ns] -> positions, velocities, accelerations (n,), as a controller commands."""
        self._path = path

    # --- what a robot says ------------------------------------------------------------------------------------

    def advance(self, until_ns: int) -> list[ObservedState]:
        """Let time pass; return what arrived meanwhile, in order of arrival."""
        while self.time_ns + STEP_NS <= until_ns:
            self._say()
            self._step()
        self._say()
        arrived = [message for due, message in self._under_way if due <= until_ns]
        self._under_way = deque(entry for entry in self._under_way if entry[0] > until_ns)
        return arrived

    def _step(self) -> None:
        scene = self.scene
        mujoco.mj_step1(scene.model, scene.data)
        if self._path is not None:
            q, v, a = self._path(self.time_ns + STEP_NS)
            self._tracking.set(q, v, a)
            self._tracking.write(scene)
        else:
            while self._commands and self._commands[0][0] <= self.time_ns:
                self._pull.set(*scene.task.tool_goal(self._commands.popleft()[1]))  # type: ignore[attr-defined]
            self._pull.write(scene)
        mujoco.mj_step2(scene.model, scene.data)
        self.time_ns += STEP_NS

    def _say(self) -> None:
        config, random = self.config, self._random
        if self.time_ns >= self._next_joints_ns:
            self._next_joints_ns += round(1e9 / config.joint_rate)
            q, v = self.scene.joints
            noisy = ObservedJoints(
                positions=q + config.joint_noise * random.standard_normal(len(q)), velocities=v
            )
            self._under_way.append((self.time_ns, ObservedState(stamp_ns=self.time_ns, joints=noisy)))
        if self.time_ns >= self._next_objects_ns:
            self._next_objects_ns += round(1e9 / config.object_rate)
            objects = {body: self._measured(body) for body in self.scene.bodies}
            if random.random() >= config.dropout and self.time_ns >= self._hidden_until_ns:
                late = self.time_ns + round(1e9 * config.object_latency)
                self._under_way.append((late, ObservedState(stamp_ns=self.time_ns, objects=objects)))

    def _measured(self, body: str) -> ObservedPose:
        position, quaternion = self.scene.pose(body)
        shift, turn = self._random.standard_normal((2, 3))
        spread = np.repeat([self.config.position_noise, self.config.angle_noise], 3) ** 2
        return ObservedPose(
            position=position + self.config.position_noise * shift,
            quaternion=turned(quaternion, self.config.angle_noise * turn),
            covariance=np.diag(np.maximum(spread, 1e-10)),
        )

    # --- scoring, and what people do --------------------------------------------------------------------------

    def truth(self, body: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the true position and quaternion of a body; for scoring only."""
        return self.scene.pose(body)

    def move_by_hand(self, body: str, shift: np.ndarray, yaw: float) -> None:
        """Somebody moves a body by (2,) along the table [m] and turns it [rad]."""
        position, quaternion = self.scene.pose(body)
        moved = position + np.array([shift[0], shift[1], 0.0])
        self.scene.place(body, moved, turned(quaternion, np.array([0.0, 0.0, yaw])))

    def hide(self, seconds: float) -> None:
        """Somebody stands before the camera: no poses of objects for a while [s]."""
        self._hidden_until_ns = self.time_ns + round(1e9 * seconds)
