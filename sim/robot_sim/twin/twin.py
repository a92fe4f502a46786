"""The twin itself: one tick takes what arrived, predicts, corrects, and reports how well it is in step.

A tick of `cell.tick_ns`:

1. Observed joints become the arm's motion; observed poses go into the filters, each compared with the twin as it was
   at the observation's stamp.
2. A body that is lost (its error is beyond the cell's bound) is put where it is observed: the only teleport, and also
   the start. A body that is not observed any more is ``blind``: simulated on, and said so.
3. The physics alone is run ahead, without the speed that corrections gave to bodies: where it leads, plus the known
   error, is where each body should be.
4. The tick is made for good, with the wrenches of the corrections; what they changed is taken off the known error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robot_datasets.errors import unknown_name
from robot_sim.twin.cell import Cell
from robot_sim.twin.correction import Correction, Goal, TickContext, build_correction
from robot_sim.twin.drive import JointTracking
from robot_sim.twin.geometry import length, rotation_between, turned
from robot_sim.twin.history import PoseHistory
from robot_sim.twin.observed import ObservationError, ObservedState
from robot_sim.twin.pose_corrections import flattened
from robot_sim.twin.pose_filter import FilterConfig, PoseFilter
from robot_sim.twin.world import TwinWorld

Motion = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # pose and velocity
Status = Literal["waiting", "tracking", "lost", "blind"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BodyReport:
    """How well one body is in step.

    Attributes:
        status: ``waiting`` for a first observation, ``tracking``, ``lost`` in this tick (and put back), or ``blind``.
        error: (6,) real minus twin as the filter knows it: position [m], rotation vector [rad].
        covariance: (6, 6) of it.
        age: Of the last observation taken [s]; inf without one.
        outliers: Observations refused so far.
    """

    status: Status
    error: np.ndarray
    covariance: np.ndarray
    age: float
    outliers: int


@dataclass(frozen=True, kw_only=True, eq=False)
class TwinReport:
    """What a tick led to.

    Attributes:
        time_ns: Time of the twin's state [ns].
        bodies: Name -> report.
        joint_age: Age of the last measured joints [s]; inf without any.
        refused: Messages refused so far, by reason.
    """

    time_ns: int
    bodies: Mapping[str, BodyReport]
    joint_age: float
    refused: Mapping[str, int]

    @property
    def lost(self) -> tuple[str, ...]:
        """Bodies whose pose is not to be trusted."""
        return tuple(name for name, body in self.bodies.items() if body.status != "tracking")


@dataclass
class _Track:
    filter: PoseFilter
    stamp_ns: int | None = None
    outliers: int = 0
    status: Status = "waiting"
    given: np.ndarray = field(default_factory=lambda: np.zeros(6))  # speed that corrections gave it


@dataclass(frozen=True, kw_only=True)
class TwinConfig:
    """What is not the cell's.

    Attributes:
        filter: How much the physics is trusted.
        blind_after: A body that was not observed for so long is blind [s].
        joint_horizon: Measured joints are continued with their velocity for at most so long [s].
    """

    filter: FilterConfig = field(default_factory=FilterConfig)
    blind_after: float = 0.5
    joint_horizon: float = 0.1


class Twin:
    """See the module's docstring.

    Args:
        cell: The cell.
        corrections: What pulls the bodies; None takes the cell's.
        config: The rest.
        start_ns: Time of the first state [ns].

    Attributes:
        cell: The cell.
        world: The simulation.
        time_ns: Time of its state [ns].
        lag_ns: The cell's arm follows the twin's by so much, when the twin leads; 0 when it mirrors the cell [ns].
        mirror: Whether measured joints drive the twin's arm; otherwise the world's drive is the caller's.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        corrections: Sequence[Correction] | None = None,
        config: TwinConfig | None = None,
        start_ns: int = 0,
    ) -> None:
        self.cell, self._config = cell, config or TwinConfig()
        self.world = TwinWorld(cell)
        self._corrections = [build_correction(cell.correction)] if corrections is None else list(corrections)
        self.time_ns, self.lag_ns, self.mirror = start_ns, 0, True
        self.history = PoseHistory()
        self._tracks = {name: _Track(PoseFilter(self._config.filter)) for name in cell.objects}
        self._joints: tuple[int, np.ndarray, np.ndarray] | None = None
        self._refused: dict[str, int] = {}
        self._remember({})

    def tick(self, observed: Sequence[ObservedState] = ()) -> TwinReport:
        """Advance by one tick.

        Args:
            observed: What arrived since the last tick.

        Raises:
            ObservationError: An object or a joint that the cell does not have.
        """
        messages = sorted(observed, key=lambda message: message.stamp_ns)
        fresh: set[str] = set()
        for message in messages:
            fresh |= self._take(message)
        for name in self.world.bodies:
            self._judge(name)
        before = self.world.save()
        goals, alone = self._look_ahead()
        self.world.restore(before)
        context = TickContext(
            now_ns=self.time_ns,
            period=self.cell.tick_ns * 1e-9,
            observed=messages,
            goals={name: goals[name] for name in goals if self._tracks[name].status != "waiting"},
            fresh=frozenset(fresh),
        )
        for correction in self._corrections:
            correction.begin(self.world, context)
        for step in range(self.cell.physics_steps):
            for correction in self._corrections:
                for body, wrench in correction.wrenches(self.world, step).items():
                    self.world.apply_wrench(body, wrench.force, wrench.torque)
            self._aim(step)
            self.world.step()
        self.time_ns += self.cell.tick_ns
        self._remember(self._after(alone))
        return self.report()

    def skip(self, ticks: int) -> None:
        """Let time pass without simulating it: ticks that a loop gave up.

        Bodies and arm stay where they are, and how far that is off becomes uncertain; after a span in which a body
        would have become blind it is.

        Args:
            ticks: How many.
        """
        seconds = ticks * self.cell.tick_ns * 1e-9
        for name, track in self._tracks.items():
            if seconds > self._config.blind_after:
                track.filter.restart()
                track.status = "waiting" if track.status == "waiting" else "blind"
                continue
            speed, turning = (length(part) for part in self.world.velocity(name))
            for _ in range(ticks):
                track.filter.predict(self.cell.tick_ns * 1e-9, speed=speed, turning=turning)
        self.time_ns += ticks * self.cell.tick_ns
        self._remember({})

    def report(self) -> TwinReport:
        """Return how well everything is in step now."""
        bodies = {}
        for name, track in self._tracks.items():
            age = np.inf if track.stamp_ns is None else (self.time_ns - track.stamp_ns) * 1e-9
            bodies[name] = BodyReport(
                status=track.status,
                error=track.filter.error.copy(),
                covariance=track.filter.covariance[:6, :6].copy(),
                age=age,
                outliers=track.outliers,
            )
        joint_age = np.inf if self._joints is None else (self.time_ns - self._joints[0]) * 1e-9
        return TwinReport(
            time_ns=self.time_ns, bodies=bodies, joint_age=joint_age, refused=dict(self._refused)
        )

    # --- what arrives -----------------------------------------------------------------------------------------

    def _take(self, message: ObservedState) -> set[str]:
        for name in message.objects:
            if name not in self._tracks:
                raise ObservationError(unknown_name("object", name, self._tracks))
        if message.stamp_ns > self.time_ns + self.cell.tick_ns:
            self._count("stamp in the future")
            return set()
        if message.joints is not None:
            self._take_joints(message)
        fresh = set()
        for name, pose in message.objects.items():
            track = self._tracks[name]
            if track.stamp_ns is not None and message.stamp_ns <= track.stamp_ns:
                self._count("object not newer than the last")
                continue
            then = self.history.at(message.stamp_ns - self.lag_ns, name)
            if then is None and track.filter.known:
                self._count("object older than the history")
                continue
            position, quaternion, corrected = then or (*self.world.pose(name), np.zeros(6))
            turn = rotation_between(quaternion, pose.quaternion)
            difference = np.concatenate([pose.position - position, turn]) - corrected
            age = max(0.0, (self.time_ns - message.stamp_ns) * 1e-9)
            verdict = track.filter.update(difference, pose.covariance, age=age)
            track.outliers += verdict != "taken"
            if verdict != "outlier":
                track.stamp_ns = message.stamp_ns
                fresh.add(name)
        return fresh

    def _take_joints(self, message: ObservedState) -> None:
        joints = message.joints
        assert joints is not None
        if len(joints.positions) != len(self.cell.robot.joints):
            raise ObservationError(
                f"got {len(joints.positions)} joints, the cell has {len(self.cell.robot.joints)}"
            )
        if self._joints is not None and message.stamp_ns <= self._joints[0]:
            self._count("joints not newer than the last")
            return
        first = self._joints is None
        self._joints = (message.stamp_ns, joints.positions, joints.velocities)
        if first and self.mirror:
            self.world.set_joints(joints.positions)

    def _count(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    # --- lost and found ---------------------------------------------------------------------------------------

    def _judge(self, name: str) -> None:
        """Say how a body is, and put it where it is observed if it is lost."""
        track, bounds = self._tracks[name], self.cell.objects[name]
        if not track.filter.known or track.stamp_ns is None:
            return
        if (self.time_ns - track.stamp_ns) * 1e-9 > self._config.blind_after:
            track.status = "blind"
            return
        error = track.filter.error
        far = length(error[:3]) > bounds.lost_position or length(error[3:]) > bounds.lost_angle
        if track.status == "waiting" or far:
            track.status = "lost" if far and track.status != "waiting" else "tracking"
            self._reinitialise(name)
        else:
            track.status = "tracking"

    def _reinitialise(self, name: str) -> None:
        here, turned_ = self.world.pose(name)
        error = self._tracks[name].filter.error
        position, quaternion = here + error[:3], turned(turned_, error[3:])
        if self.cell.objects[name].motion == "planar":
            position, quaternion = flattened(self.world, name, position, quaternion)
        self.world.place(name, position, quaternion)
        self.world.refresh()
        moved = np.concatenate([self.world.pose(name)[0] - here, rotation_between(turned_, quaternion)])
        self._tracks[name].filter.error, self._tracks[name].given = error - moved, np.zeros(6)
        self.history.teleported(name, self.world.pose(name), moved)

    # --- the tick ---------------------------------------------------------------------------------------------

    def _aim(self, step: int) -> None:
        """Continue the measured joints to the end of a physics step."""
        drive = self.world.drive
        if not self.mirror or self._joints is None or not isinstance(drive, JointTracking):
            return
        stamp_ns, positions, velocities = self._joints
        ahead = (self.time_ns - stamp_ns) * 1e-9 + (step + 1) * self.world.timestep
        if ahead > self._config.joint_horizon:
            drive.set(positions + velocities * self._config.joint_horizon, np.zeros_like(velocities))
        else:
            drive.set(positions + velocities * ahead, velocities)

    def _look_ahead(self) -> tuple[dict[str, list[Goal]], dict[str, Motion]]:
        """Run the tick's physics without corrections; return the goals and how the bodies end."""
        for name, track in self._tracks.items():
            linear, angular = self.world.velocity(name)
            self.world.set_velocity(name, linear - track.given[:3], angular - track.given[3:])
        goals: dict[str, list[Goal]] = {name: [] for name in self.world.bodies}
        period = self.cell.tick_ns * 1e-9
        for step in range(self.cell.physics_steps):
            self._aim(step)
            self.world.step()
            share = (step + 1) / self.cell.physics_steps
            for name in self.world.bodies:
                known = self._tracks[name].filter
                error = known.error + share * period * known.rate
                position, quaternion = self.world.pose(name)
                linear, angular = self.world.velocity(name)
                goals[name].append(
                    Goal(
                        position=position + error[:3],
                        quaternion=turned(quaternion, error[3:]),
                        linear=linear,
                        angular=angular,
                    )
                )
        ends = {name: (*self.world.pose(name), *self.world.velocity(name)) for name in self.world.bodies}
        return goals, ends

    def _after(self, alone: Mapping[str, Motion]) -> dict[str, np.ndarray]:
        """Return what the corrections changed, and let the filters predict."""
        changed = {}
        for name, (position, quaternion, linear, angular) in alone.items():
            track, (here, turned_) = self._tracks[name], self.world.pose(name)
            moved = np.concatenate([here - position, rotation_between(quaternion, turned_)])
            track.given = np.concatenate(self.world.velocity(name)) - np.concatenate([linear, angular])
            track.filter.predict(
                self.cell.tick_ns * 1e-9,
                moved=moved,
                speed=length(linear),
                turning=length(angular),
            )
            changed[name] = moved
        return changed

    def _remember(self, moved: Mapping[str, np.ndarray]) -> None:
        poses = {name: self.world.pose(name) for name in self.world.bodies}
        self.history.append(self.time_ns, poses, moved)
