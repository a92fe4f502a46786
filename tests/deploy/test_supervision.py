"""States: every transition of the table and no other. Watchdogs: each bound, from both sides."""

import itertools

import pytest

from robot_datasets.mapping import ConfigError
from robot_deploy.supervision.states import (
    LIFECYCLE,
    SEGMENTS,
    TRANSITIONS,
    Event,
    State,
    StateMachine,
    TransitionError,
)
from robot_deploy.supervision.watchdogs import WatchdogConfig, Watchdogs

MS = 1_000_000


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_of_state_and_event(state: State, event: Event):
    """An event leads where the table says, or is refused with the possible ones and changes nothing."""
    machine = StateMachine()
    machine.state = state
    if (state, event) in TRANSITIONS:
        assert machine.can(event)
        assert machine.send(event) is TRANSITIONS[(state, event)]
    else:
        with pytest.raises(
            TransitionError, match=f"'{event.value}' is not possible in state '{state.value}'"
        ):
            machine.send(event)
        assert machine.state is state


def test_the_table_is_closed():
    """Every state can be reached, has a lifecycle state and a way back to idle; faults only leave by a reset."""
    assert set(LIFECYCLE) == set(State)
    reached, frontier = {State.UNCONFIGURED}, {State.UNCONFIGURED}
    while frontier:
        frontier = {new for (old, _), new in TRANSITIONS.items() if old in frontier} - reached
        reached |= frontier
    assert reached == set(State)
    assert {event for state, event in TRANSITIONS if state is State.FAULT} == {Event.RESET}
    for state in State:
        if state is not State.UNCONFIGURED and state is not State.FAULT:
            assert (state, Event.FAULT) in TRANSITIONS
    assert set(SEGMENTS.values()) == {"policy", "recovery", "correction"}


def test_a_fault_keeps_its_first_reason_until_reset():
    """The reason of a fault is there until somebody resets it."""
    machine = StateMachine()
    machine.send(Event.CONFIGURE)
    machine.send(Event.FAULT, "first")
    with pytest.raises(TransitionError):
        machine.send(Event.FAULT, "second")
    assert machine.fault == "first"
    machine.send(Event.RESET)
    assert machine.fault == ""


def test_clock_watchdog():
    """Steps of either clock, a time that goes back, and ticks that are missing are told apart."""
    dogs = Watchdogs(WatchdogConfig(), period_ns=10 * MS)
    assert dogs.clocks(0, 1000) == ""
    assert dogs.clocks(10 * MS, 1000 + 10 * MS) == ""
    assert "moved by +100.0 ms" in dogs.clocks(20 * MS, 1000 + 120 * MS)
    assert dogs.clocks(30 * MS, 1000 + 130 * MS) == ""
    assert "moved by -50.0 ms" in dogs.clocks(40 * MS, 1000 + 90 * MS)
    assert "command rate: 60.0 ms" in dogs.clocks(100 * MS, 1000 + 150 * MS)
    assert "went back by 10.0 ms" in dogs.clocks(90 * MS, 1000 + 140 * MS)
    dogs.forget()
    assert dogs.clocks(10**12, 5) == ""


def test_bounds_of_the_other_watchdogs():
    """Each says nothing up to its bound, and what is wrong with figures beyond it."""
    dogs = Watchdogs(WatchdogConfig(), period_ns=10 * MS)
    assert dogs.inference(10**10, None) == ""
    assert dogs.inference(500 * MS, 0) == ""
    assert "no chunk for 501 ms, allowed 500" in dogs.inference(501 * MS, 0)
    assert dogs.stall(1000 * MS, 0) == ""
    assert "no action for 1001 ms" in dogs.stall(1001 * MS, 0)
    assert dogs.feedback(50 * MS) == ""
    assert "51 ms old" in dogs.feedback(51 * MS)
    assert "no joint state" in dogs.feedback(None)
    assert dogs.observation(10**9, 5 * 10**8, "cam: stale") == ""
    assert dogs.observation(2 * 10**9, 5 * 10**8, "cam: stale") == "observation: cam: stale"
    assert dogs.traffic() == ""
    dogs.publishers = 2
    assert "2 on the command topic, expected 1" in dogs.traffic()


def test_bounds_must_be_positive():
    """A bound of 0 would always or never bite, and is refused."""
    with pytest.raises(ConfigError, match="stall_ms"):
        WatchdogConfig(stall_ms=0.0)
