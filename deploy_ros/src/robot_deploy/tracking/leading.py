"""A twin that mirrors its cell, and leads it while a policy acts in it: what `twin run` and the twin's node share.

While it mirrors, measured joints drive the twin's arm. While it leads, the policy pulls the tool of the twin's arm at
the policy's rate and the cell's arm follows, a little later: the delay is measured from the joints of both, and
observations are compared with the twin as it was that much earlier. Nothing here knows ROS, reads a clock or waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from robot_datasets.errors import UserError
from robot_sim.twin.cell import Cell
from robot_sim.twin.drive import JointTracking, ToolPull
from robot_sim.twin.lag import LagEstimator
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.twin import Twin, TwinReport
from robot_sim.twin.view import TwinView

_LAG_EVERY = 15  # ticks between estimates of the delay


class PolicyError(UserError):
    """A policy raised, or said something that is no action."""


class StepPolicy(Protocol):
    """A policy, one step at a time."""

    def reset(self) -> None:
        """Begin an episode."""
        ...

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the action (A,) for an observation of the task."""
        ...


class AskedPolicy(Protocol):
    """A policy that may take its time."""

    @property
    def ready(self) -> bool:
        """Whether it may be asked."""
        ...

    def reset(self) -> None:
        """Begin an episode; an answer that is still to come is of no interest any more."""
        ...

    def ask(self, observation: Mapping[str, np.ndarray]) -> None:
        """Give it an observation of the task."""
        ...

    def answer(self) -> np.ndarray | None:
        """Return the action (A,) for what was asked, once; None as long as there is none.

        Raises:
            PolicyError: It could not answer.
        """
        ...


class AtOnce:
    """A policy that answers before anything else happens.

    Args:
        policy: The policy.
    """

    ready = True

    def __init__(self, policy: StepPolicy) -> None:
        self._policy = policy
        self._action: np.ndarray | None = None

    def reset(self) -> None:
        """Begin an episode."""
        self._action = None
        self._policy.reset()

    def ask(self, observation: Mapping[str, np.ndarray]) -> None:
        """Ask and wait."""
        self._action = self._policy.act(observation)

    def answer(self) -> np.ndarray | None:
        """Return the action, once."""
        action, self._action = self._action, None
        return action


class LeadingTwin:
    """See the module's docstring.

    Args:
        cell: The cell file.
        start_ns: Time of the first state [ns].

    Attributes:
        cell: The cell.
        twin: Its twin; mirrors at first.
        view: The twin as the task sees it.
        leads: Whether a policy acts, instead of measured joints.
        steps: Policy steps made since `lead`.
        late: Ticks in which a step was due and the policy not done with the last one.
    """

    def __init__(self, cell: Cell, *, start_ns: int = 0) -> None:
        self.cell, self.twin = cell, Twin(cell, start_ns=start_ns)
        self.view = TwinView(self.twin)
        self.leads, self.steps, self.late = False, 0, 0
        self._per_step = max(1, round(cell.rates.twin / cell.rates.policy))
        self._lag = LagEstimator()

    @property
    def time_ns(self) -> int:
        """Time of the twin's state [ns]."""
        return self.twin.time_ns

    def skip(self, ticks: int) -> None:
        """Let time pass without simulating it; see `Twin.skip`."""
        self.twin.skip(ticks)

    def tick(self, messages: Sequence[ObservedState]) -> TwinReport:
        """Make a tick of the twin with what the cell said since the last one.

        Raises:
            ObservationError: An object or a joint that the cell does not have.
        """
        for message in messages:
            if message.joints is not None:
                self._lag.arm(message.stamp_ns, message.joints.positions)
        report = self.twin.tick(messages)
        if self.leads:
            self._lag.twin(self.twin.time_ns, self.joints[0])
            if self.twin.time_ns // self.cell.tick_ns % _LAG_EVERY == 0:
                self.twin.lag_ns = self._lag.update()
        return report

    def lead(self, policy: AskedPolicy) -> None:
        """Let a policy lead; the tool is pulled to where it is until the policy acts."""
        policy.reset()
        self._policy, self._since_hold, self._was_held = policy, 0, True
        self.steps, self.late = 0, 0
        self._pull = ToolPull(
            self.twin.world, stiffness=self.cell.robot.stiffness, hold=self.cell.physics_steps
        )
        self.twin.mirror, self.twin.world.drive = False, self._pull
        self.leads = True

    def mirror(self) -> None:
        """Let measured joints drive the twin's arm again."""
        self.twin.mirror, self.twin.world.drive, self.twin.lag_ns = True, JointTracking(), 0
        self._lag = LagEstimator()
        self.leads = False

    def act(self, *, held: bool) -> None:
        """Let the policy act if it is its turn; after every tick while the twin leads.

        Args:
            held: The twin waits: the tool stays where it is, and answers are of no interest.

        Raises:
            PolicyError: The policy raised, or said something that is no action.
        """
        begins, self._was_held = held and not self._was_held, held
        if begins:
            self._pull.set(self.twin.world.tool, self._pull.rotation)
        if held:
            self._policy.answer()
            return
        if self._since_hold % self._per_step == 0:
            if not self._policy.ready:
                self.late += 1
                self._pull_to(self._policy.answer())
                return
            self._policy.ask(self.view.observe())
            self.steps += 1
        self._since_hold += 1
        self._pull_to(self._policy.answer())

    @property
    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions [rad] and velocities [rad/s] of the twin's arm, (n,) each."""
        return self.twin.world.joints

    def _pull_to(self, action: np.ndarray | None) -> None:
        if action is None:
            return
        if not np.isfinite(action).all():
            raise PolicyError(f"the policy's action is not finite: {np.array2string(action, threshold=8)}")
        self._pull.set(*self.twin.world.task.tool_goal(action))  # type: ignore[attr-defined]
