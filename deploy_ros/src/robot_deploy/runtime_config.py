"""What a runtime is configured with, and what it says at every tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_deploy.motion.reference import Interpolation
from robot_deploy.motion.rules import FilterRules
from robot_deploy.motion.trajectory import Trajectory
from robot_deploy.observation.rings import SourceConfig
from robot_deploy.observation.window import FeatureSource, Problem, Window
from robot_deploy.supervision.states import State
from robot_deploy.supervision.watchdogs import WatchdogConfig
from robot_policies.execution import Continuation

Mode = Literal["dry_run", "shadow", "tracker", "live"]


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Everything but the policy and the robot's limits.

    Attributes:
        sources: Sensor streams by name.
        features: Where each feature of the policy comes from.
        feedback: The source of kind ``state`` that holds the measured joint positions.
        mode: ``dry_run`` computes everything and sends nothing; ``shadow`` does, too, while somebody else drives,
            and starts again from the measured position with every chunk; ``tracker`` follows the joints of a twin
            in which the policy runs; ``live`` moves the robot.
        command_rate: Command periods per second [Hz].
        lead: Command periods computed ahead; how late a message may be.
        cut_after: A stop changes the motion from so many periods on [periods]: how late its message may be. More is
            a longer way to rest, less a jerk if the message is late.
        command: What an action is: absolute positions, or velocities.
        interpolation: Of positions between actions.
        executor: ``{"type": ...}`` of `robot_policies.execution`; None is receding horizon.
        rules: The safety filter's.
        watchdogs: Bounds of the watchdogs.
        waits: Whether time in which nothing was sent is waited for instead of skipped: right for receivers that keep
            the last point or velocity, wrong for those that execute trajectories.
        start_tolerance: Distance between the last command and the measured position up to which a motion goes on
            from the command [rad or m]; beyond it, from the measured position. In tracker mode, largest distance
            of the twin at the start.
        acceleration_share: Share of the acceleration limits that following a policy uses; a stop uses all.
        jerk_share: The same for jerk.
        max_action_speed: Consecutive actions that ask for more than so many times the velocity limit stop the
            robot (rule VELOCITY); slower ones are followed as fast as allowed. None never stops.
    """

    sources: Mapping[str, SourceConfig]
    features: Mapping[str, tuple[FeatureSource, ...]] = field(default_factory=dict)
    feedback: str = "joints"
    mode: Mode = "dry_run"
    command_rate: float = 100.0
    lead: int = 3
    cut_after: int = 1
    waits: bool = False
    command: Literal["position", "velocity"] = "position"
    interpolation: Interpolation = "quintic"
    executor: Mapping[str, Any] | None = None
    rules: FilterRules = field(default_factory=FilterRules)
    watchdogs: WatchdogConfig = field(default_factory=WatchdogConfig)
    start_tolerance: float = 0.05
    acceleration_share: float = 0.5
    jerk_share: float = 0.2
    max_action_speed: float | None = 5.0

    def __post_init__(self) -> None:
        if self.feedback not in self.sources or self.sources[self.feedback].kind != "state":
            raise ConfigError(
                f"feedback: '{self.feedback}' is no source of kind 'state'; sources: {', '.join(sorted(self.sources))}"
            )
        if not 1.0 <= self.command_rate <= 2000.0 or not 1 <= self.cut_after <= self.lead <= 50:
            raise ConfigError(
                f"command_rate {self.command_rate:g} Hz, lead {self.lead} and cut_after {self.cut_after}; expected 1 "
                "to 2000 Hz, 1 to 50 periods, and 1 to lead"
            )


@dataclass(frozen=True, kw_only=True)
class ChunkRequest:
    """What the inference is asked for.

    Attributes:
        ticket: To be given back with the chunk.
        window: What the policy reads.
        continuation: What the chunk should agree with, or None.
    """

    ticket: int
    window: Window
    continuation: Continuation | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tick:
    """The result of one command period.

    Attributes:
        state: State after the tick.
        segment: Tag of a frame recorded now: ``policy``, ``recovery``, ``correction`` or "".
        trajectory: From now to rest; None before the first start.
        send: Whether it is to be sent to the robot. Otherwise it is for a shadow topic.
        request: A chunk is wanted; at most one request is open at a time.
        fault: Why the state is FAULT; "" otherwise.
        problems: What is wrong with the observations.
        broken: (N_RULES,) bool: rules of the filter broken by targets in this tick.
        deviation: Largest distance between commanded and measured positions [rad or m]; NaN if unknown.
    """

    state: State
    segment: str
    trajectory: Trajectory | None
    send: bool
    request: ChunkRequest | None
    fault: str
    problems: tuple[Problem, ...]
    broken: np.ndarray
    deviation: float
