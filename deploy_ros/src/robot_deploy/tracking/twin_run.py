"""A policy acts in the twin, the arm follows the twin: the loop of Real-is-Sim, without ROS.

Per tick of the twin: what the cell said goes to the twin, the pace and the runtime; the policy acts on the twin unless
the pace says wait; the twin's joints go through `TwinPace` to a `Runtime` in mode ``tracker``, whose safety filter
makes the trajectory that the arm's controller follows. Time is the cell's: with a surrogate the loop runs as fast as
it can and the same inputs give the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot_datasets.features import Feature
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.observation.rings import SourceConfig
from robot_deploy.robots import load_robot
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import RuntimeConfig
from robot_deploy.supervision.states import Event, State
from robot_deploy.supervision.watchdogs import WatchdogConfig
from robot_deploy.surrogate.audit import CommandAudit
from robot_deploy.surrogate.controllers import JointTrajectoryController
from robot_deploy.tracking.leading import AtOnce, LeadingTwin, StepPolicy
from robot_deploy.tracking.pace import PaceConfig, TwinPace
from robot_policies.spec import PolicySpec
from robot_sim.twin.cell import Cell
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.surrogate import SurrogateCell
from robot_sim.twin.twin import TwinReport

_HALVES = 2  # command periods per tick of the twin
_LEAST_NS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TwinRunConfig:
    """Bounds of a run.

    Attributes:
        pace: Between twin and arm.
        drop_joints: From when [s], for how long [s]: the cell's joint states do not arrive.
        freeze: From when [s], for how long [s]: the arm does not move, whatever it is told.
        settle: The twin watches so long before the policy acts [s].
    """

    pace: PaceConfig = field(default_factory=PaceConfig)
    drop_joints: tuple[float, float] | None = None
    freeze: tuple[float, float] | None = None
    settle: float = 0.5


@dataclass
class TwinRunResult:
    """What came of a run.

    Attributes:
        success: Whether the true block reached the goal at some step, and in the twin.
        steps: Policy steps made.
        held: Share of the ticks in which the twin waited.
        holds: How often it began to wait.
        fault: Why the runtime gave up; "" otherwise.
        gaps: Largest joint distance between what is commanded and measured, per tick [rad].
        lags_ms: Estimated delay of the arm, per tick [ms].
        errors: Distance between the twin's and the true object a lag ago, per tick [m]; surrogates only.
        violations: Commands beyond a published limit, by kind.
    """

    success: bool = False
    twin_success: bool = False
    steps: int = 0
    held: float = 0.0
    holds: int = 0
    fault: str = ""
    gaps: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    violations: dict[str, int] = field(default_factory=dict)


class TwinRun:
    """One cell, its twin, and the runtime between them; see the module's docstring.

    Args:
        cell: The cell file.
        surrogate: The cell itself; another source needs `advance` and `follow`.
        config: Bounds.
    """

    def __init__(self, cell: Cell, surrogate: SurrogateCell, config: TwinRunConfig | None = None) -> None:
        self._cell, self._surrogate, self._config = cell, surrogate, config or TwinRunConfig()
        self.limits = cell_limits(cell)
        self.leading = LeadingTwin(cell)
        self.twin, self.view = self.leading.twin, self.leading.view
        names = cell.robot.joints
        self.pace = TwinPace(names, self._config.pace)
        self.audit = CommandAudit(published_limits(cell))
        self.controller = JointTrajectoryController(names)
        self._half_ns = round(cell.tick_ns / _HALVES)
        self.runtime = Runtime(
            RuntimeConfig(
                sources={"joints": SourceConfig(kind="state", names=names)},
                mode="tracker",
                command_rate=1e9 / self._half_ns,
                watchdogs=WatchdogConfig(feedback_age_ms=1000.0, clock_jump_ms=50.0),
            ),
            joint_spec(cell),
            self.limits,
        )

    def run(self, policy: StepPolicy, *, seed: int, max_steps: int) -> TwinRunResult:
        """Run an episode of the task; the surrogate starts where `seed` says."""
        result, leading = TwinRunResult(), self.leading
        self._begin(seed, policy)
        per_step = round(self._cell.rates.twin / self._cell.rates.policy)
        ticks, waiting = 0, 0
        was_held = True
        while result.steps < max_steps and not result.success and not result.fault:
            report = self._tick()
            ticks += 1
            held = self.pace.hold or bool(report.lost)
            waiting += held
            result.holds += held and not was_held
            was_held = held
            leading.act(held=held)
            result.steps = leading.steps
            self._note(result)
            if ticks > 4 * max_steps * per_step:
                result.fault = "the twin waited three quarters of the time"
        result.held = waiting / max(1, ticks)
        result.violations = dict(self.audit.violations)
        return result

    # --- how ----------------------------------------------------------------------------------------------

    def _begin(self, seed: int, policy: StepPolicy) -> None:
        """Mirror the resting cell until the twin is in step, then let the policy lead."""
        self._surrogate.start(seed)
        now_ns = 0
        while now_ns < self._config.settle * 1e9:
            now_ns += self._cell.tick_ns
            messages = self._surrogate.advance(now_ns)
            self._listen(messages, now_ns)
            self.leading.tick(messages)
        self.leading.lead(AtOnce(policy))
        self.controller.hold(self._newest)
        self._surrogate.follow(self._path)
        self.runtime.command(Event.START)

    def _tick(self) -> TwinReport:
        """One tick: the cell, the runtime, the twin."""
        messages: list[ObservedState] = []
        for half in range(_HALVES):
            now_ns = self.twin.time_ns + (half + 1) * self._half_ns
            heard = self._surrogate.advance(now_ns)
            kept = [m for m in heard if m.joints is None or not self._within(self._config.drop_joints)]
            self._listen(kept, now_ns)
            messages += kept
            target = self.pace.target(now_ns)
            if target is not None:
                self.runtime.track(target, now_ns=now_ns)
            self._send(now_ns)
        report = self.leading.tick(messages)
        now_ns, joints = self.twin.time_ns, self.leading.joints[0]
        self.pace.twin(self._cell.robot.joints, joints.tolist(), stamp_ns=now_ns, now_ns=now_ns)
        self.pace.check(now_ns)
        return report

    def _listen(self, messages: Sequence[ObservedState], now_ns: int) -> None:
        for message in messages:
            if message.joints is None:
                continue
            positions = message.joints.positions
            self._newest = positions
            self.pace.arm(self._cell.robot.joints, positions.tolist(), now_ns=now_ns)
            self.runtime.sample(
                "joints",
                positions,
                stamp_ns=max(message.stamp_ns, _LEAST_NS),
                clock_ns=now_ns,
                names=self._cell.robot.joints,
            )

    def _send(self, now_ns: int) -> None:
        """One command period: what the filter lets through goes to the arm's controller."""
        tick = self.runtime.tick(now_ns, clock_ns=now_ns)
        if tick.trajectory is None or not tick.send or self._within(self._config.freeze):
            return
        trajectory = tick.trajectory
        times = trajectory.period_ns * np.arange(len(trajectory), dtype=np.int64)
        self.controller.take(
            trajectory.names, trajectory.start_ns, times, trajectory.positions, trajectory.velocities, None,
            now_ns=now_ns,
        )  # fmt: skip

    def _path(self, time_ns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the arm's controller wants; judged as it is asked."""
        if self._within(self._config.freeze):
            rest = np.zeros(len(self._newest))
            return self._newest, rest, rest
        motion = self.controller.path(np.array([time_ns]))
        self.audit.look(np.array([time_ns]), motion)
        return motion[0][0], motion[1][0], motion[2][0]

    def _within(self, span: tuple[float, float] | None) -> bool:
        if span is None:
            return False
        now = self._surrogate.time_ns * 1e-9
        return span[0] <= now < span[0] + span[1]

    def _note(self, result: TwinRunResult) -> None:
        if self.runtime.machine.state is State.FAULT:
            result.fault = self.runtime.machine.fault
        commanded = self.controller.path(np.array([self._surrogate.time_ns]))[0][0]
        result.gaps.append(float(np.max(np.abs(commanded - self._surrogate.scene.joints[0]))))
        result.lags_ms.append(self.twin.lag_ns * 1e-6)
        then = self.twin.history.at(self.twin.time_ns - self.twin.lag_ns, self.twin.world.bodies[0])
        if then is not None:
            real = self._surrogate.truth(self.twin.world.bodies[0])[0]
            result.errors.append(float(np.linalg.norm(then[0][:2] - real[:2])))
        result.success = result.success or self.view.succeeds(self._surrogate.scene)
        result.twin_success = result.twin_success or self.view.succeeds(self.twin.world)


def published_limits(cell: Cell) -> MotionLimits:
    """Return the limits of the cell's robot as published, joint names the cell's."""
    limits = load_robot(cell.robot.limits).limits()
    parts = ("lower", "upper", "velocity", "acceleration", "jerk")
    return MotionLimits(names=cell.robot.joints, **{part: getattr(limits, part) for part in parts})


def cell_limits(cell: Cell) -> MotionLimits:
    """Return what binds the arm in this cell: the published limits and the cell's own."""
    limits = published_limits(cell)
    lower, upper = np.array(limits.lower), np.array(limits.upper)
    if cell.robot.lower:
        lower = np.maximum(lower, cell.robot.lower)
    if cell.robot.upper:
        upper = np.minimum(upper, cell.robot.upper)
    return MotionLimits(
        names=limits.names, lower=lower, upper=upper,
        velocity=limits.velocity, acceleration=limits.acceleration, jerk=limits.jerk,
    )  # fmt: skip


def joint_spec(cell: Cell) -> PolicySpec:
    """Return the contract of a stream of joint positions: the twin stands where a policy would."""
    n = len(cell.robot.joints)
    joints: Any = Feature(
        dtype="float32", shape=(n,), names=cell.robot.joints, units=("rad",) * n, meaning="absolute position"
    )
    return PolicySpec(
        observation={}, action=joints,
        n_obs_steps=1, horizon=2, n_action_steps=1, fps=cell.rates.policy,
    )  # fmt: skip
