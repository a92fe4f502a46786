"""The policy's side of a motion: actions from an executor, one control step after the other, as targets in time."""

from __future__ import annotations

import numpy as np

from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.reference import ActionReference
from robot_deploy.motion.tracking import Motion, Target
from robot_deploy.runtime_config import RuntimeConfig
from robot_policies.execution import ChunkExecutor
from robot_policies.execution.executor import NoActionError


class ActionStream:
    """Takes an action whenever a control step is over, and says where the joints should be in between.

    Times are those of knots on the command grid [ns]; control steps keep their own grid, also where a step is
    no whole number of command periods. When the executor has no action the stream pauses, and its steps go on
    from the knot at which the next action is there: delays are steps that were really executed. They also go on from
    there when a late tick has skipped knots beyond the end of the running step.

    Attributes:
        stalled: Whether the last target was missing because no chunk covered its step.
        too_fast: Whether an action was farther from the one before than `max_speed` allows.
    """

    def __init__(
        self,
        executor: ChunkExecutor,
        reference: ActionReference,
        *,
        order: np.ndarray,
        step_ns: int,
        max_speed: np.ndarray | None,
        velocities: bool,
    ) -> None:
        """Start paused.

        Args:
            executor: Gives the actions.
            reference: Joins them.
            order: (n,) index of each joint in an action.
            step_ns: Length of a control step [ns].
            max_speed: (n,) largest speed between two actions [rad/s or m/s]; None for any.
            velocities: Whether actions are velocities.
        """
        self._executor, self._reference, self._order = executor, reference, order
        self._step_ns, self._max_speed, self._velocities = step_ns, max_speed, velocities
        self.pause()

    def pause(self) -> None:
        """End the running step: the next target begins a new one."""
        self._reference.end()
        self._end_ns: int | None = None
        self._last: np.ndarray | None = None
        self.stalled, self.too_fast = False, False

    def target(self, head_ns: int, period_ns: int, motion: Motion) -> Target | None:
        """The target one period after the head; None if there is no action for it.

        Args:
            head_ns: Time of the last knot computed.
            period_ns: Command period.
            motion: Commanded position, velocity and acceleration there, (n,) each.
        """
        time_ns = head_ns + period_ns
        if self._end_ns is None or time_ns > self._end_ns:
            planned = self._executor.planned()
            try:
                action = self._executor.next_action()[self._order].astype(np.float64)
            except NoActionError:
                self.pause()
                self.stalled = True
                return None
            self.stalled = False
            self._check(action, motion[0])
            if self._end_ns is None or head_ns > self._end_ns:
                self._end_ns = head_ns
            self._end_ns += self._step_ns
            self._begin_ns = head_ns
            following = planned[1][self._order].astype(np.float64) if len(planned) > 1 else None
            self._reference.begin(motion, action, following, duration=(self._end_ns - head_ns) * 1e-9)
        return self._reference.target((time_ns - self._begin_ns) * 1e-9)

    def _check(self, action: np.ndarray, position: np.ndarray) -> None:
        before = position if self._last is None else self._last
        self._last = action
        speed = np.abs(action) if self._velocities else np.abs(action - before) / (self._step_ns * 1e-9)
        self.too_fast = self._max_speed is not None and not bool(np.all(speed <= self._max_speed))


def build_stream(
    config: RuntimeConfig, executor: ChunkExecutor, limits: MotionLimits, *, order: np.ndarray, step_ns: int
) -> ActionStream:
    """Return the stream of a runtime.

    Args:
        config: The runtime's.
        executor: Gives the actions.
        limits: The robot's.
        order: (n,) index of each joint in an action.
        step_ns: Length of a control step [ns].
    """
    speed = config.max_action_speed
    return ActionStream(
        executor,
        ActionReference(step_time=step_ns * 1e-9, command=config.command, interpolation=config.interpolation),
        order=order,
        step_ns=step_ns,
        max_speed=None if speed is None else speed * limits.velocity,
        velocities=config.command == "velocity",
    )
