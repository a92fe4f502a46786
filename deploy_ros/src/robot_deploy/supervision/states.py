r"""The states of a policy on a robot, and every way from one to another.

After "RaC" (Hu et al., arXiv 2509.07953): a person can pause the policy, bring the robot back to a state it knows
(RECOVERY), show what it should have done (CORRECTION), and hand over again. Frames are tagged with who moved the
robot, so that training can leave out what the policy did wrong.

::

    UNCONFIGURED --configure--> IDLE --start--> STARTING --ready--> AUTONOMOUS <--resume/ready-- PAUSED
                                 ^  ^                                  |  pause -->  ^   |  ^
                                 |  '---- at_rest ---- STOPPING <-stop-'             |   recover / correct / pause
                                 '------- reset ------ FAULT <-- fault (from anywhere)   RECOVERY <-> CORRECTION

Only the table below moves the machine. An event that a state does not know is refused, never ignored.
"""

from __future__ import annotations

from enum import Enum

from robot_datasets.errors import UserError


class State(str, Enum):
    """Who has the robot."""

    UNCONFIGURED = "unconfigured"
    IDLE = "idle"
    STARTING = "starting"
    AUTONOMOUS = "autonomous"
    PAUSED = "paused"
    RECOVERY = "recovery"
    CORRECTION = "correction"
    STOPPING = "stopping"
    FAULT = "fault"


class Event(str, Enum):
    """What can happen to it."""

    CONFIGURE = "configure"
    CLEANUP = "cleanup"
    START = "start"
    READY = "ready"
    PAUSE = "pause"
    RESUME = "resume"
    RECOVER = "recover"
    CORRECT = "correct"
    STOP = "stop"
    AT_REST = "at_rest"
    FAULT = "fault"
    RESET = "reset"


_ACTIVE = (State.STARTING, State.AUTONOMOUS, State.PAUSED, State.RECOVERY, State.CORRECTION)

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.UNCONFIGURED, Event.CONFIGURE): State.IDLE,
    (State.IDLE, Event.CLEANUP): State.UNCONFIGURED,
    (State.IDLE, Event.START): State.STARTING,
    (State.STARTING, Event.READY): State.AUTONOMOUS,
    (State.AUTONOMOUS, Event.PAUSE): State.PAUSED,
    (State.STARTING, Event.PAUSE): State.PAUSED,
    (State.PAUSED, Event.RESUME): State.STARTING,
    (State.PAUSED, Event.RECOVER): State.RECOVERY,
    (State.PAUSED, Event.CORRECT): State.CORRECTION,
    (State.RECOVERY, Event.CORRECT): State.CORRECTION,
    (State.RECOVERY, Event.PAUSE): State.PAUSED,
    (State.CORRECTION, Event.RECOVER): State.RECOVERY,
    (State.CORRECTION, Event.PAUSE): State.PAUSED,
    **{(state, Event.STOP): State.STOPPING for state in _ACTIVE},
    (State.STOPPING, Event.AT_REST): State.IDLE,
    **{(state, Event.FAULT): State.FAULT for state in (State.IDLE, *_ACTIVE, State.STOPPING)},
    (State.FAULT, Event.RESET): State.IDLE,
}
"""Every transition there is."""

LIFECYCLE: dict[State, str] = {
    State.UNCONFIGURED: "unconfigured",
    State.IDLE: "inactive",
    **dict.fromkeys((*_ACTIVE, State.STOPPING, State.FAULT), "active"),
}
"""The primary state of a ROS 2 lifecycle node in each state; a fault stays active, because it may be braking."""

SEGMENTS: dict[State, str] = {
    State.AUTONOMOUS: "policy",
    State.RECOVERY: "recovery",
    State.CORRECTION: "correction",
}
"""Tag of the frames recorded in a state; states not named here are nobody's."""

POLICY_STATES = (State.STARTING, State.AUTONOMOUS)
"""States in which the policy is asked for chunks."""

HUMAN_STATES = (State.RECOVERY, State.CORRECTION)
"""States in which a person's targets are followed."""


class TransitionError(UserError):
    """An event came in a state that does not know it."""


class StateMachine:
    """Holds the state and the reason of the last fault."""

    def __init__(self) -> None:
        """Start unconfigured."""
        self.state = State.UNCONFIGURED
        self.fault = ""

    def can(self, event: Event) -> bool:
        """Whether the present state knows the event."""
        return (self.state, event) in TRANSITIONS

    def send(self, event: Event, reason: str = "") -> State:
        """Move along the table and return the new state.

        Args:
            event: What happened.
            reason: Why, for a fault; a later fault does not hide the first one.

        Raises:
            TransitionError: The present state does not know the event.
        """
        if not self.can(event):
            known = ", ".join(sorted(e.value for s, e in TRANSITIONS if s is self.state))
            raise TransitionError(
                f"'{event.value}' is not possible in state '{self.state.value}'; possible: {known}"
            )
        self.state = TRANSITIONS[(self.state, event)]
        if event is Event.FAULT:
            self.fault = reason or "fault"
        elif event in (Event.RESET, Event.CLEANUP):
            self.fault = ""
        return self.state
