"""The safety filter: no limit is ever broken, a stop is always reachable, good targets are followed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_datasets.kinematics import PANDA
from robot_datasets.mapping import ConfigError
from robot_deploy.motion.limits import LimitsError, MotionLimits
from robot_deploy.motion.rules import FilterRules, Rule, RuleSetting
from robot_deploy.motion.safety_filter import SafetyFilter
from robot_deploy.motion.tracking import Target
from robot_deploy.motion.workspace import SerialTool, Workspace
from robot_deploy.testing import HostileTargets, LimitAudit

CLAMP = FilterRules(rules={"position": RuleSetting(), "velocity": RuleSetting()})
BOX = (np.array([-0.3, -0.6, 0.1]), np.array([0.75, 0.6, 1.0]))
hostile_numbers = st.one_of(
    st.floats(-4.0, 4.0), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, -0.0, 5e-324, 1e9])
)  # fmt: skip


def _target(home: np.ndarray, q: float = 0.0, v: float = 0.0, a: float = 0.0) -> Target:
    return Target((home + q)[None], np.full((1, 7), v), np.full((1, 7), a))


def _run_hostile(
    safety: SafetyFilter, limits: MotionLimits, audit: LimitAudit, periods: int, seed: int
) -> None:
    """Drive a filter with hostile targets; every 50 periods follow the stored stops to their ends, and go back."""
    hostile = HostileTargets(limits, batch=len(safety.at_rest), seed=seed, with_nan=False)
    for number in range(periods):
        before = safety.state
        audit.check(before, safety.step(hostile.next(before)))
        if number % 50 == 49:
            saved = safety.snapshot()
            for _ in range(int(safety.steps_to_rest.max())):
                before = safety.state
                audit.check(before, safety.step(None))
            assert safety.at_rest.all()
            safety.restore(saved)


@pytest.mark.parametrize("period", [0.002, 0.01, 0.04])
def test_hostile_targets_break_no_limit(period: float, panda, home):
    """Fifty filters under attack: not one sample of position, velocity, acceleration or jerk beyond its limit."""
    safety = SafetyFilter(panda, period=period, rules=CLAMP, batch=50)
    safety.reset(home)
    audit = LimitAudit(panda, period)
    _run_hostile(safety, panda, audit, 300, seed=1)
    assert not any(audit.violations.values()), audit.violations
    assert audit.largest["velocity"] > 0.99
    assert audit.largest["acceleration"] > 0.99


def test_the_tool_stays_in_the_workspace(panda, home):
    """Under attack the tool does not leave its box, neither moving nor while it stops, and it gets near the walls."""
    tool = SerialTool(PANDA)
    box = Workspace(tool, joints=slice(0, 7), lower=tuple(BOX[0]), upper=tuple(BOX[1]))
    safety = SafetyFilter(panda, period=0.01, rules=CLAMP, workspace=box, batch=20)
    safety.reset(home)
    audit = LimitAudit(panda, 0.01, tool=tool, box=BOX)
    _run_hostile(safety, panda, audit, 200, seed=2)
    assert not any(audit.violations.values()), audit.violations
    assert safety.counts[:, Rule.WORKSPACE].sum() > 100


@settings(max_examples=40)
@given(arrays(np.float64, (8, 3, 7), elements=hostile_numbers), st.integers(1, 25))
def test_no_sequence_of_numbers_breaks_a_limit(numbers, repeat):
    """Whatever floats a target holds, for however many periods, every limit is kept; NaN and infinity stop."""
    limits = MotionLimits(
        names=tuple("abcdefg"), lower=np.full(7, -2.0), upper=np.linspace(0.5, 3.0, 7),
        velocity=np.full(7, 2.0), acceleration=np.full(7, 10.0), jerk=np.full(7, 500.0),
    )  # fmt: skip
    safety = SafetyFilter(limits, period=0.01, rules=CLAMP)
    safety.reset(np.zeros(7))
    audit = LimitAudit(limits, 0.01)
    for q, v, a in numbers:
        for _ in range(repeat):
            before = safety.state
            audit.check(before, safety.step(Target(q[None], v[None], a[None])))
    assert not any(audit.violations.values()), audit.violations
    assert (safety.stopped_by[0] == Rule.FINITE) == (not np.isfinite(numbers).all())


def test_a_feasible_motion_is_followed_exactly(panda, home):
    """A target made of periods of constant jerk is followed to rounding, and nothing is counted."""
    safety = SafetyFilter(panda, period=0.01)
    safety.reset(home)
    q, v, a = np.zeros(7), np.zeros(7), np.zeros(7)
    for number in range(120):
        jerk = np.full(7, 40.0 if number % 120 < 30 or number % 120 >= 90 else -40.0)
        q = q + 0.01 * v + 0.5e-4 * a + jerk * 1e-6 / 6
        v, a = v + 0.01 * a + 0.5e-4 * jerk, a + 0.01 * jerk
        step = safety.step(Target((home + 0.3 * q)[None], 0.3 * v[None], 0.3 * a[None]))
        assert np.abs(step.position[0] - home - 0.3 * q).max() < 1e-12
    assert safety.counts.sum() == 0


def test_a_distant_target_is_reached_without_overshoot(panda, home):
    """A step of the target by 0.5 rad is reached, and passed by less than 1 % of it."""
    safety = SafetyFilter(panda, period=0.01, rules=CLAMP)
    safety.reset(home)
    path = np.array([safety.step(_target(home, 0.5)).position[0] - home for _ in range(200)])
    assert np.abs(path[-1] - 0.5).max() < 1e-4
    assert path.max() < 0.505


def test_the_stop_that_the_workspace_check_saw_is_the_stop_told(panda, home):
    """Knots kept from the check are those of the stored stop, also where the check sent the arm back to it."""
    workspace = Workspace(SerialTool(PANDA), joints=slice(0, 7), lower=tuple(BOX[0]), upper=tuple(BOX[1]))
    safety = SafetyFilter(panda, period=0.01, rules=CLAMP, workspace=workspace, batch=3)
    safety.reset(home)
    hostile = HostileTargets(panda, batch=3, seed=4, with_nan=False)
    for _ in range(150):
        safety.step(hostile.next(safety.state))
        kept = safety.stop_knots()
        safety.restore(safety.snapshot())  # forgets what was kept
        for ours, fresh in zip(kept, safety.stop_knots(), strict=True):
            np.testing.assert_array_equal(ours, fresh)
    assert safety.counts[:, Rule.WORKSPACE].any()


def test_many_filters_are_one_filter_many_times(panda, home):
    """A filter's motion does not depend on which others run beside it."""
    targets = HostileTargets(panda, batch=4, seed=3, with_nan=False)
    together = SafetyFilter(panda, period=0.01, rules=CLAMP, batch=4)
    alone = [SafetyFilter(panda, period=0.01, rules=CLAMP) for _ in range(4)]
    for safety in (together, *alone):
        safety.reset(home)
    for _ in range(100):
        t = targets.next(together.state)
        step = together.step(t)
        assert t.position is not None
        for i, safety in enumerate(alone):
            one = safety.step(Target(t.position[i : i + 1], t.velocity[i : i + 1], t.acceleration[i : i + 1]))
            np.testing.assert_array_equal(one.position[0], step.position[i])
            np.testing.assert_array_equal(one.broken[0], step.broken[i])


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        (lambda h: Target(np.full((1, 7), np.nan), np.zeros((1, 7)), np.zeros((1, 7))), Rule.FINITE),
        (lambda h: Target(np.zeros((1, 6)), np.zeros((1, 6)), np.zeros((1, 6))), Rule.SHAPE),
        (lambda h: _target(h, 10.0), Rule.POSITION),
        (lambda h: _target(h, 0.0, 50.0), Rule.VELOCITY),
    ],
)
def test_what_goes_much_too_far_stops_until_reset(target, rule: Rule, panda, home):
    """NaN, a wrong shape and a gross excess brake to rest; good targets do not start it again, a reset does."""
    rules = FilterRules(rules={"velocity": RuleSetting(stop_above=5.0)})
    safety = SafetyFilter(panda, period=0.01, rules=rules)
    safety.reset(home)
    for _ in range(30):
        safety.step(_target(home, 0.05))
    assert not safety.at_rest.all()
    safety.step(target(home))
    for _ in range(60):
        safety.step(_target(home, 0.05))
    step = safety.step(_target(home, 0.05))
    assert step.stopped[0]
    assert safety.at_rest.all()
    assert safety.stopped_by[0] == rule
    assert safety.counts[0, rule] >= 1
    safety.reset(safety.state[0])
    assert not safety.step(_target(home, 0.05)).stopped[0]


def test_a_small_excess_is_clamped_and_counted(panda, home):
    """A target 0.05 rad beyond the limit leads to the limit, and every period of it is counted."""
    safety = SafetyFilter(panda, period=0.01)
    safety.reset(home)
    goal = home.copy()
    for start in np.linspace(home[0], panda.upper[0] + 0.05, 300):
        goal[0] = start
        safety.step(Target(goal[None], np.zeros((1, 7)), np.zeros((1, 7))))
    for _ in range(100):
        safety.step(Target(goal[None], np.zeros((1, 7)), np.zeros((1, 7))))
    assert panda.upper[0] - 1e-3 < safety.state[0][0, 0] <= panda.upper[0]
    assert safety.counts[0, Rule.POSITION] > 100
    assert safety.stopped_by[0] == -1


def test_a_rule_in_mode_stop_stops_at_the_first_excess(panda, home):
    """With mode stop even a small excess latches."""
    safety = SafetyFilter(panda, period=0.01, rules=FilterRules(rules={"position": RuleSetting(mode="stop")}))
    safety.reset(home)
    safety.step(Target(home[None] + 3.0 * np.eye(7)[:1], np.zeros((1, 7)), np.zeros((1, 7))))
    assert safety.stopped_by[0] == Rule.POSITION


def test_an_arm_that_does_not_follow_stops(panda, home):
    """When the measured position stays behind by more than allowed, or is NaN, the filter stops."""
    for measured in (home - 0.3, np.full(7, np.nan)):
        safety = SafetyFilter(panda, period=0.01)
        safety.reset(home)
        safety.step(_target(home, 0.01), measured[None])
        assert safety.stopped_by[0] == Rule.DEVIATION


def test_a_start_outside_the_limits_is_refused(panda, home):
    """A robot outside its limits, at NaN, or with the tool outside the workspace is not driven; the error names it."""
    safety = SafetyFilter(panda, period=0.01)
    with pytest.raises(LimitsError, match="reset it with a measured one"):
        safety.step(None)
    home[3] = 0.0
    with pytest.raises(LimitsError, match=r"'panda_joint4' is at 0\.0000"):
        safety.reset(home)
    with pytest.raises(LimitsError, match="is at nan"):
        safety.reset(np.full(7, np.nan))
    high = Workspace(SerialTool(PANDA), joints=slice(0, 7), lower=(-1, -1, 0.9), upper=(1, 1, 2))
    with pytest.raises(LimitsError, match="the tool is at"):
        SafetyFilter(panda, period=0.01, workspace=high).reset(
            np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])
        )


def test_velocities_are_followed_without_positions(panda, home):
    """A target without a position is a velocity command; it ends before the limit."""
    safety = SafetyFilter(panda, period=0.01)
    safety.reset(home)
    for _ in range(700):
        safety.step(Target(None, np.full((1, 7), 0.5), np.zeros((1, 7))))
    position = safety.state[0][0]
    assert (position <= panda.upper).all()
    assert (position > panda.upper - 0.02).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": {"positon": RuleSetting()}}, "did you mean 'position'"),
        ({"rules": {"finite": RuleSetting()}}, "cannot be clamped"),
        ({"max_deviation": 0.0}, "expected more than 0"),
    ],
)
def test_wrong_rules_are_refused(values: dict, message: str):
    """Unknown rules, clamping the unclampable, and senseless bounds are errors that say what to do."""
    with pytest.raises(ConfigError, match=message):
        FilterRules(**values)
