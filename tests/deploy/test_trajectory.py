"""Segments between actions, and messages that end in a stop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_deploy.motion.limits import LimitsError
from robot_deploy.motion.reference import ActionReference, Segment, knot_velocity
from robot_deploy.motion.rules import FilterRules, RuleSetting
from robot_deploy.motion.safety_filter import SafetyFilter
from robot_deploy.motion.tracking import Target
from robot_deploy.motion.trajectory import CommittedPlan

MS = 1_000_000
CLAMP = FilterRules(rules={"position": RuleSetting(), "velocity": RuleSetting()})
numbers = st.floats(-10.0, 10.0)


@given(st.lists(numbers, min_size=6, max_size=6), st.floats(0.01, 2.0), st.sampled_from(["cubic", "quintic"]))
def test_a_segment_meets_both_ends(values, duration, interpolation):
    """Position and velocity (and acceleration of a quintic) are those asked for, and are each other's derivatives."""
    p = [np.array([x]) for x in values]
    start, end = (p[0], p[1], p[2]), (p[3], p[4], p[5])
    segment = Segment(start, end, duration=duration, interpolation=interpolation)
    for time, want in ((0.0, start), (duration, end)):
        got = segment.at(time)
        for order in range(3 if interpolation == "quintic" else 2):
            assert got[order] == pytest.approx(want[order], abs=1e-6)
    h, middle = duration * 1e-4, 0.4 * duration
    rise = (segment.at(middle + h)[0] - segment.at(middle - h)[0]) / (2 * h)
    assert segment.at(middle)[1] == pytest.approx(rise, rel=1e-3, abs=1e-2)


@given(numbers, numbers)
def test_knot_velocities_do_not_overshoot(before, after):
    """The velocity at a knot lies between 0 and twice the smaller slope, and is 0 at an extreme."""
    v = float(knot_velocity(np.array([before]), np.array([after]))[0])
    if before * after <= 0:
        assert v == 0
    else:
        assert 0 < abs(v) <= 2 * min(abs(before), abs(after)) + 1e-12


def test_actions_are_joined_without_jumps():
    """Over a chunk and an unrelated next one, position, velocity and acceleration of the targets are continuous."""
    random = np.random.default_rng(0)
    actions = np.cumsum(random.normal(size=(12, 3)), axis=0) * 0.1
    reference = ActionReference(step_time=0.1)
    motion = (np.zeros(3), np.zeros(3), np.zeros(3))
    for step, action in enumerate(actions):
        reference.begin(motion, action, actions[step + 1] if step + 1 < len(actions) else None)
        first = reference.target(0.0)
        assert first is not None
        assert first.position is not None
        for got, want in zip((first.position, first.velocity, first.acceleration), motion, strict=True):
            np.testing.assert_allclose(got[0], want, atol=1e-9)
        last = reference.target(0.1)
        assert last is not None
        assert last.position is not None
        np.testing.assert_allclose(last.position[0], action, atol=1e-12)
        motion = (last.position[0], last.velocity[0], last.acceleration[0])
    assert np.abs(motion[1]).max() < 1e-12  # nothing follows the last action: the plan ends at rest


def test_velocity_actions_are_lines_without_positions():
    """A velocity command is a straight line from the present velocity, and asks for no position."""
    reference = ActionReference(step_time=0.1, command="velocity")
    assert reference.target(0.0) is None
    reference.begin((np.ones(2), np.zeros(2), np.zeros(2)), np.array([0.2, -0.4]), None)
    half = reference.target(0.05)
    assert half is not None
    assert half.position is None
    np.testing.assert_allclose(half.velocity[0], [0.1, -0.2])
    np.testing.assert_allclose(half.acceleration[0], [2.0, -4.0])


def _plan(panda, home, lead: int = 3) -> CommittedPlan:
    plan = CommittedPlan(SafetyFilter(panda, period=0.01, rules=CLAMP), period_ns=10 * MS, lead=lead)
    plan.start(home, 0)
    return plan


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_every_message_ends_at_rest_and_agrees_with_the_next(panda, home, seed, lead):
    """Each message begins now and ends at rest, and the next repeats its next knots: replacing one is no jump."""
    random = np.random.default_rng(seed)
    plan = _plan(panda, home, lead)
    last = None
    for tick in range(40):
        assert plan.now(tick * 10 * MS) == tick
        for _ in range(plan.wanted()):
            plan.extend(Target(home[None] + random.normal(size=(1, 7)), np.zeros((1, 7)), np.zeros((1, 7))))
        message = plan.trajectory()
        assert message.start_ns == tick * 10 * MS
        assert not message.velocities[-1].any()
        assert not message.accelerations[-1].any()
        if last is not None:
            for ours, theirs in ((message.positions, last.positions), (message.velocities, last.velocities)):
                np.testing.assert_allclose(ours[:lead], theirs[1 : lead + 1], atol=1e-12)
        last = message


def test_silence_is_a_stop_within_limits(panda, home):
    """Played to its end by a cubic interpolator, a message keeps every limit in between and ends at rest."""
    plan = _plan(panda, home)
    for tick in range(25):
        plan.now(tick * 10 * MS)
        for _ in range(plan.wanted()):
            plan.extend(Target(home[None] + 1.0, np.zeros((1, 7)), np.zeros((1, 7))))
    message = plan.trajectory()
    assert np.abs(message.velocities[0]).max() > 1.0
    times = np.arange(message.start_ns, message.start_ns + len(message) * 10 * MS, MS // 4)
    q, v, a = (np.stack(x) for x in zip(*(message.at(int(t)) for t in times), strict=True))
    assert (q >= panda.lower).all()
    assert (q <= panda.upper).all()
    assert (np.abs(v) <= panda.velocity).all()
    assert (np.abs(a) <= panda.acceleration * (1 + 1e-6)).all()
    assert (np.abs(np.diff(a, axis=0)) <= panda.jerk * 0.25e-3 * 1.01 + 1e-4).all()
    assert not v[-1].any()


def test_a_plan_that_was_not_heard_of_follows_its_own_stop(panda, home):
    """When ticks are missed, the plan assumes what the receiver did: it executed the stop that it had."""
    plan = _plan(panda, home)
    for tick in range(10):
        plan.now(tick * 10 * MS)
        for _ in range(plan.wanted()):
            plan.extend(Target(home[None] + 1.0, np.zeros((1, 7)), np.zeros((1, 7))))
    message = plan.trajectory()
    assert plan.now(15 * 10 * MS) == 15
    np.testing.assert_allclose(plan.commanded, message.at(15 * 10 * MS)[0], atol=1e-12)
    plan.now(100 * 10 * MS)
    assert plan.at_rest


def test_a_cut_stops_from_the_present(panda, home):
    """After a cut the motion stops from the next knot on, not from the end of the lead."""
    plan = _plan(panda, home, lead=20)
    for tick in range(25):
        plan.now(tick * 10 * MS)
        for _ in range(plan.wanted()):
            plan.extend(Target(home[None] + 1.0, np.zeros((1, 7)), np.zeros((1, 7))))
    long = plan.trajectory()
    plan.cut()
    cut = plan.trajectory()
    assert len(cut) < len(long) - 10
    np.testing.assert_array_equal(cut.positions[:2], long.positions[:2])
    assert not cut.velocities[-1].any()


def test_joints_are_selected_by_name(panda, home):
    """A controller of some joints gets these, in its own order."""
    message = _plan(panda, home).trajectory()
    part = message.select(("panda_joint4", "panda_joint1"))
    np.testing.assert_array_equal(part.positions[0], home[[3, 0]])
    with pytest.raises(LimitsError, match="lead 0"):
        CommittedPlan(SafetyFilter(panda, period=0.01), period_ns=10 * MS, lead=0)
