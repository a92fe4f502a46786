"""A person steps in: no jump, no limit broken, the right calls in the right order, and tags on every frame."""

from __future__ import annotations

import numpy as np
import pytest

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError
from robot_deploy.drill import MS, DrillRun, start_drill
from robot_deploy.intervention.handover import HandoverConfig, LeaderHandover
from robot_deploy.intervention.session import BUTTONS, InterventionSession
from robot_deploy.supervision.states import Event, State

EVENTS = {
    "pause": Event.PAUSE, "recover": Event.RECOVER, "correct": Event.CORRECT, "resume": Event.RESUME, "stop": Event.STOP
}  # fmt: skip


class Person:
    """Presses buttons and moves a leader arm; calls reach the runtime as those of a node would."""

    def __init__(self, run: DrillRun, config: HandoverConfig) -> None:
        self.run, self.session = run, InterventionSession()
        self.handover = LeaderHandover(run.limits.names, config)
        self.leader = run.arm.position.copy()
        self.calls: list[str] = []

    @property
    def state(self) -> State:
        return self.run.runtime.machine.state

    def press(self, button: str) -> None:
        self.session.press(button, self.state)

    def live(self, ticks: int, move: np.ndarray | None = None) -> None:
        for _ in range(ticks):
            now = self.run.now_ns
            self.leader = self.leader + (0.0 if move is None else move)
            self.handover.lead(self.leader, now)
            service = self.session.advance(self.state, now)
            if service is not None:
                self.calls.append(service)
                if service in ("recover", "correct") and not self.handover.engaged:
                    self.handover.engage(self.run.arm.position, now)
                elif service in ("pause", "stop"):
                    self.handover.release()
                self.run.runtime.command(EVENTS[service])
            target = self.handover.target(now)
            if target is not None:
                self.run.runtime.track(target, now_ns=now)
            self.run.step()


def speeds(run: DrillRun, since: int) -> np.ndarray:
    """Largest commanded speed of any joint, per sample from the `since`-th on [rad/s]."""
    return np.array([np.abs(row[2]).max() for row in run.path[since:]])


@pytest.mark.parametrize("alignment", ["slide", "relative"])
def test_both_hand_overs_are_smooth(alignment: str, panda, home):
    """From the policy to a person half a radian away and back: no sample beyond a limit, and no hurry."""
    run = start_drill(panda, home)
    person = Person(run, HandoverConfig(alignment=alignment, speed=0.3))  # type: ignore[arg-type]
    person.leader = run.arm.position + 0.5
    person.press("take_over")
    person.live(60)
    assert person.calls == ["pause", "recover"]
    assert person.state is State.RECOVERY
    begun = len(run.path)
    person.live(250)
    assert speeds(run, begun).max() < 0.3 * 1.2  # nobody moves the leader: only sliding is left
    expected = person.leader if alignment == "slide" else person.leader - 0.5
    np.testing.assert_allclose(run.arm.position, expected, atol=0.12 if alignment == "relative" else 0.02)
    person.press("correct")
    person.live(100, move=np.full(7, 0.001))
    assert {tick.segment for tick in run.ticks[-90:]} == {"correction"}
    person.press("hand_back")
    person.live(120)
    assert person.calls == ["pause", "recover", "correct", "pause", "resume"]
    assert person.state is State.AUTONOMOUS
    assert person.session.problem == ""
    assert not any(run.violations().values())
    tags = [tick.segment for tick in run.ticks]
    changes = [tag for k, tag in enumerate(tags) if k == 0 or tag != tags[k - 1]]
    assert changes == ["", "policy", "", "recovery", "correction", "", "policy"]


def test_a_jerky_person_breaks_no_limit(panda, home):
    """A leader that is thrown about is followed as far as the limits allow."""
    run = start_drill(panda, home)
    person = Person(run, HandoverConfig(alignment="relative"))
    random = np.random.default_rng(0)
    person.press("take_over")
    person.live(60)
    for _ in range(25):
        thrown_to = home + np.clip(random.normal(size=7), -1.0, 1.0) * 0.5
        person.live(8, move=(thrown_to - person.leader) / 8)
    assert person.state is State.RECOVERY, run.ticks[-1].fault
    assert not any(run.violations().values())
    assert speeds(run, 0).max() > 0.5


def test_a_leader_far_away_or_silent_does_not_take_over():
    """Taking over is refused with the joint and the distance; so it is before the leader was ever heard."""
    handover = LeaderHandover(("a", "b"), HandoverConfig(max_offset=1.0))
    with pytest.raises(UserError, match="silent"):
        handover.engage(np.zeros(2), 0)
    assert handover.lead(np.array([0.0, 1.2]), 0)
    with pytest.raises(UserError, match=r"differ by 1\.20 at 'b'"):
        handover.engage(np.zeros(2), 10 * MS)
    with pytest.raises(UserError, match="silent"):
        handover.engage(np.zeros(2), 200 * MS)
    handover.lead(np.zeros(2), 300 * MS)
    with pytest.raises(UserError, match="differ by nan"):
        handover.engage(np.array([np.nan, 0.0]), 300 * MS)
    assert handover.target(300 * MS) is None
    for bad in (np.zeros(3), np.array([np.nan, 0.0]), np.array([np.inf, 0.0])):
        assert not handover.lead(bad, 400 * MS)
    with pytest.raises(ConfigError):
        HandoverConfig(speed=0.0)


def test_sliding_ends_at_the_leader_and_never_faster_than_told():
    """The target starts at the arm, moves at the given speed, and stays on the leader once it is there."""
    handover = LeaderHandover(("a",), HandoverConfig(speed=0.5))
    handover.lead(np.array([0.4]), 0)
    handover.engage(np.array([0.0]), 0)
    path = []
    for now in range(0, 1500, 10):
        handover.lead(np.array([0.4]), now * MS)
        path.append(handover.target(now * MS)[0])  # type: ignore[index]
    assert path[0] == 0.0
    assert np.diff(path).max() <= 0.5 * 0.01 + 1e-12
    assert path[-1] == 0.4
    handover.lead(np.array([0.1]), 1500 * MS)
    assert handover.target(1500 * MS) == pytest.approx([0.1])
    handover.release()
    assert handover.target(1500 * MS) is None


@pytest.mark.parametrize("button", BUTTONS)
@pytest.mark.parametrize("state", list(State))
def test_a_button_works_or_says_what_would(button: str, state: State):
    """In every state every button either begins its calls or is refused with those that are possible."""
    session = InterventionSession()
    if state in BUTTONS[button]:
        session.press(button, state)
        assert session.advance(state, 0) == BUTTONS[button][state][0]
    else:
        with pytest.raises(UserError, match=f"not possible in state '{state.value}'"):
            session.press(button, state)
        assert not session.busy


def test_a_call_that_leads_nowhere_is_given_up():
    """No answer in time, or a refusal: the person is told, and a pause that failed becomes a stop."""
    session = InterventionSession(timeout_ms=100.0)
    session.press("take_over", State.AUTONOMOUS)
    assert session.advance(State.AUTONOMOUS, 0) == "pause"
    assert session.advance(State.AUTONOMOUS, 50 * MS) is None
    with pytest.raises(UserError, match="under way"):
        session.press("take_over", State.AUTONOMOUS)
    assert session.advance(State.AUTONOMOUS, 101 * MS) == "stop"
    assert "did not lead to 'paused'" in session.problem
    assert not session.busy
    session.press("hand_back", State.PAUSED)
    assert session.advance(State.PAUSED, 0) == "resume"
    assert session.refused("observations are not fit") is None
    assert session.problem == "'resume' was refused: observations are not fit"
    with pytest.raises(UserError, match="did you mean"):
        session.press("takeover", State.AUTONOMOUS)
