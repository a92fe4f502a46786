"""Buttons of a person, as the calls that a policy node knows, in the order in which it knows them.

===============  ===================================================  ======================
button           the node is in                                       calls
===============  ===================================================  ======================
``take_over``    starting, autonomous                                 pause, recover
                 paused                                               recover
``correct``      recovery                                             correct
``recover``      correction                                           recover
``hand_back``    recovery, correction                                 pause, resume
                 paused                                               resume
``pause``        starting, autonomous, recovery, correction           pause
``stop``         any of these                                         stop
===============  ===================================================  ======================

A call is made when the node says that it is in the state which the call before was to lead to. If it does not say so
in time, or refuses, what is left is dropped, and the person is told; a robot that was to be paused is then asked to
stop, because somebody wants it to.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from robot_datasets.errors import UserError, unknown_name
from robot_deploy.supervision.states import HUMAN_STATES, POLICY_STATES, State

_AFTER = {
    "pause": State.PAUSED,
    "recover": State.RECOVERY,
    "correct": State.CORRECTION,
    "resume": State.STARTING,
    "stop": State.STOPPING,
}

BUTTONS: dict[str, dict[State, tuple[str, ...]]] = {
    "take_over": {**dict.fromkeys(POLICY_STATES, ("pause", "recover")), State.PAUSED: ("recover",)},
    "correct": {State.RECOVERY: ("correct",), State.PAUSED: ("correct",)},
    "recover": {State.CORRECTION: ("recover",), State.PAUSED: ("recover",)},
    "hand_back": {**dict.fromkeys(HUMAN_STATES, ("pause", "resume")), State.PAUSED: ("resume",)},
    "pause": dict.fromkeys((*POLICY_STATES, *HUMAN_STATES), ("pause",)),
    "stop": dict.fromkeys((*POLICY_STATES, *HUMAN_STATES, State.PAUSED), ("stop",)),
}
"""Button -> state of the node -> services to call, one after the other."""

SERVICES = tuple(_AFTER)
"""Services of a policy node that are called."""


@dataclass
class InterventionSession:
    """What a person asked for, and how far it is.

    Attributes:
        timeout_ms: Longest time from a call to the state it leads to [ms].
        problem: Why the last button did not do all it should; "" if it did, or is still at it.
    """

    timeout_ms: float = 1000.0
    problem: str = ""

    def __post_init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._open: tuple[str, int] | None = None  # service, when it was called [ns]

    @property
    def busy(self) -> bool:
        """Whether a button is still being worked on."""
        return bool(self._waiting) or self._open is not None

    def press(self, button: str, state: State) -> None:
        """Begin what a button asks for; ``stop`` and ``pause`` replace what is being worked on.

        Raises:
            UserError: There is no such button, it means nothing in this state, or another one is still at work.
        """
        if button not in BUTTONS:
            raise UserError(unknown_name("button", button, BUTTONS))
        if state not in BUTTONS[button]:
            possible = ", ".join(b for b, states in BUTTONS.items() if state in states) or "none"
            raise UserError(f"'{button}' is not possible in state '{state.value}'; possible: {possible}")
        if self.busy and button not in ("stop", "pause"):
            raise UserError(
                f"'{button}' has to wait: {self._open[0] if self._open else self._waiting[0]} is under way"
            )
        self._waiting, self._open, self.problem = deque(BUTTONS[button][state]), None, ""

    def advance(self, state: State, now_ns: int) -> str | None:
        """Return the service to call now, if any.

        Args:
            state: What the node last said.
            now_ns: Monotonic time [ns].
        """
        if self._open is not None:
            service, since = self._open
            reached = _AFTER[service]
            # A state may be over before it is heard of: resume leads through STARTING, stop through STOPPING.
            passed = {State.STARTING: (State.AUTONOMOUS,), State.STOPPING: (State.IDLE,)}.get(reached, ())
            if state is reached or state in passed:
                self._open = None
            elif now_ns - since > self.timeout_ms * 1e6:
                return self._give_up(f"did not lead to '{reached.value}' in {self.timeout_ms:g} ms")
            else:
                return None
        if not self._waiting:
            return None
        service = self._waiting.popleft()
        self._open = (service, now_ns)
        return service

    def refused(self, message: str) -> str | None:
        """The node refused the call that is open; return what to call instead, if anything."""
        return self._give_up(f"was refused: {message}") if self._open is not None else None

    def _give_up(self, why: str) -> str | None:
        assert self._open is not None
        service = self._open[0]
        self._waiting, self._open, self.problem = deque(), None, f"'{service}' {why}"
        return "stop" if service == "pause" else None
