"""Corrections from object poses: nothing, virtual forces, and the teleport that both are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_sim.twin.correction import TickContext, Wrench, clipped, register_correction
from robot_sim.twin.geometry import length, rotation_between, turned
from robot_sim.twin.world import TwinWorld

PLANAR = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])  # of forces and torques
FREE = np.ones(3), np.ones(3)
GRAVITY = 9.81  # [m/s²]
SMALL = 0.0005  # errors so small are not worth overcoming friction for [m]


def freedom(world: TwinWorld, body: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the axes (3,) of forces and (3,) of torques that may act on a body, 1 or 0."""
    return PLANAR if world.cell.objects[body].motion == "planar" else FREE


@dataclass(frozen=True, kw_only=True)
class NoCorrectionConfig:
    """Nothing to choose."""


@register_correction("none", NoCorrectionConfig)
class NoCorrection:
    """The physics alone: an open-loop simulation."""

    def __init__(self, config: NoCorrectionConfig) -> None:
        del config

    def begin(self, world: TwinWorld, context: TickContext) -> None:
        """Do nothing."""

    def wrenches(self, world: TwinWorld, step: int) -> Mapping[str, Wrench]:
        """Return no wrench."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ForceConfig:
    """Virtual spring and damper between a body and its goal, relative to its inertia.

    Attributes:
        frequency: Of the spring, critically damped [rad/s].
        max_speed: With which errors are closed at most [m/s]: what bounds the jumps.
        max_spin: The same for orientations [rad/s].
        support: Share of a planar body's friction that is offset, so that stiction does not hold small errors.
        max_acceleration: Largest force over mass [m/s²]: the clip that lets contacts win.
        max_angular_acceleration: Largest torque over inertia [rad/s²].
    """

    frequency: float = 60.0
    max_speed: float = 0.25
    max_spin: float = 4.0
    support: float = 0.8
    max_acceleration: float = 20.0
    max_angular_acceleration: float = 400.0

    def __post_init__(self) -> None:
        for name in ("frequency", "max_speed", "max_spin", "max_acceleration", "max_angular_acceleration"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"correction.{name}: got {getattr(self, name)}, expected above 0")


@register_correction("force", ForceConfig)
class ForceCorrection:
    """Pulls every body towards its goal with a clipped force, renewed at every physics step."""

    def __init__(self, config: ForceConfig) -> None:
        self._config = config
        self._context: TickContext | None = None

    def begin(self, world: TwinWorld, context: TickContext) -> None:
        """Take the goals of this tick."""
        self._context = context

    def wrenches(self, world: TwinWorld, step: int) -> Mapping[str, Wrench]:
        """Return spring and damper forces towards the goals of this step."""
        context, config = self._context, self._config
        if context is None:
            return {}
        approach, damping = 0.5 * config.frequency, 2.0 * config.frequency
        wrenches = {}
        for body, goals in context.goals.items():
            goal = goals[step]
            position, quaternion = world.pose(body)
            linear, angular = world.velocity(body)
            way, turn = goal.position - position, rotation_between(quaternion, goal.quaternion)
            pull = damping * (clipped(approach * way, config.max_speed) + goal.linear - linear)
            twist = damping * (clipped(approach * turn, config.max_spin) + goal.angular - angular)
            if world.cell.objects[body].motion == "planar":
                hold = config.support * world.cell.objects[body].friction * GRAVITY
                pull = pull + hold * way / (length(way) + SMALL)
            along, about = freedom(world, body)
            inertia = float(np.mean(world.inertia(body)) if about is FREE[1] else world.inertia(body).max())
            wrenches[body] = Wrench(
                force=world.mass(body) * clipped(pull * along, config.max_acceleration),
                torque=inertia * clipped(twist * about, config.max_angular_acceleration),
            )
        return wrenches


@dataclass(frozen=True, kw_only=True)
class ResetConfig:
    """Where bodies are put.

    Attributes:
        filtered: To the filter's estimate for now; otherwise to the observation as it came, however old.
    """

    filtered: bool = True


@register_correction("reset", ResetConfig)
class ResetCorrection:
    """Puts a body to where it was observed, whatever it touches there: the baseline, not a way to run a twin."""

    def __init__(self, config: ResetConfig) -> None:
        self._config = config

    def begin(self, world: TwinWorld, context: TickContext) -> None:
        """Teleport the bodies that were observed since the last tick."""
        for body in context.fresh:
            if self._config.filtered and body in context.goals:
                goal = context.goals[body][0]
                position, quaternion = goal.position, goal.quaternion
            else:
                pose = [message.objects[body] for message in context.observed if body in message.objects][-1]
                position, quaternion = pose.position, pose.quaternion
            if world.cell.objects[body].motion == "planar":
                position, quaternion = flattened(world, body, position, quaternion)
            world.place(body, position, quaternion)

    def wrenches(self, world: TwinWorld, step: int) -> Mapping[str, Wrench]:
        """Return no wrench."""
        return {}


def flattened(
    world: TwinWorld, body: str, position: np.ndarray, quaternion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a pose with the height, roll and pitch that the body has now, for bodies that slide on a table."""
    here, now = world.pose(body)
    yaw = rotation_between(now, quaternion)[2]
    return np.array([position[0], position[1], here[2]]), turned(now, np.array([0.0, 0.0, yaw]))
