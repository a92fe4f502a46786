"""Following a twin: the twin waits for the arm, and what it says is checked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robot_datasets.mapping import ConfigError
from robot_deploy.drill import MS, DrillRun, SimulatedArm, drill_config, drill_spec
from robot_deploy.runtime import Runtime
from robot_deploy.supervision.states import Event, State
from robot_deploy.tracking.pace import PaceConfig, TwinPace

NAMES = ("a", "b")


def test_the_twin_waits_while_the_arm_lags():
    """Hold above one distance, go on below the other, and hold while either side is unknown or silent."""
    pace = TwinPace(NAMES, PaceConfig(hold_above=0.1, go_below=0.03, max_age_ms=50))
    assert pace.hold
    assert np.isnan(pace.lag)
    pace.twin(NAMES, [0.0, 0.0], stamp_ns=1, now_ns=0)
    assert pace.hold
    pace.arm(("b", "extra", "a"), [0.0, 9.0, 0.0], now_ns=0)
    assert not pace.hold
    for at, hold in ((0.08, False), (0.12, True), (0.06, True), (0.02, False)):
        pace.twin(NAMES, [at, 0.0], stamp_ns=pace._twin[1] + 1, now_ns=0)  # type: ignore[index]
        assert pace.hold is hold
    pace.check(49 * MS)
    assert not pace.hold
    pace.check(51 * MS)
    assert pace.hold
    assert pace.target(51 * MS) is None


def test_what_a_twin_says_is_checked():
    """Order by name; NaN, missing joints and old messages are refused; a jump stops until a person agrees."""
    pace = TwinPace(NAMES)
    assert pace.twin(("b", "x", "a"), [2.0, 7.0, 1.0], stamp_ns=10, now_ns=0)
    np.testing.assert_array_equal(pace.target(0), [1.0, 2.0])
    assert not pace.twin(NAMES, [np.nan, 2.0], stamp_ns=11, now_ns=0)
    assert not pace.twin(("a",), [1.0], stamp_ns=12, now_ns=0)
    assert not pace.twin(NAMES, [1.0], stamp_ns=12, now_ns=0)
    assert not pace.twin(NAMES, [1.0, 2.0], stamp_ns=10, now_ns=0)
    assert pace.twin(NAMES, [1.1, 2.0], stamp_ns=20, now_ns=0)
    assert not pace.twin(NAMES, [2.0, 2.0], stamp_ns=30, now_ns=0)
    assert pace.jumped
    assert pace.target(0) is None
    assert not pace.twin(NAMES, [2.0, 2.0], stamp_ns=40, now_ns=0)
    pace.accept_jump()
    assert pace.twin(NAMES, [2.0, 2.0], stamp_ns=50, now_ns=0)
    np.testing.assert_array_equal(pace.target(0), [2.0, 2.0])
    assert pace.refused["jump"] == 1
    assert pace.refused["missing joint or not finite"] == 3


def test_a_simulation_that_starts_anew_counts_as_a_jump():
    """Its clock goes back by more than a second: not followed by itself, but accepted when a person says so."""
    pace = TwinPace(NAMES)
    pace.twin(NAMES, [0.0, 0.0], stamp_ns=10**10, now_ns=0)
    assert not pace.twin(NAMES, [0.0, 0.0], stamp_ns=1, now_ns=0)
    pace.accept_jump()
    assert pace.twin(NAMES, [0.0, 0.0], stamp_ns=2, now_ns=0)


@pytest.mark.parametrize("changes", [{"go_below": 0.2}, {"max_jump": 0.0}, {"max_age_ms": -1.0}])
def test_bounds_that_cannot_be_are_refused(changes: dict[str, float]):
    """The twin must go on at a smaller distance than it waits at."""
    with pytest.raises(ConfigError, match="tracking"):
        PaceConfig(**changes)


@pytest.mark.parametrize("speed", [0.2, 6.0], ids=["slow twin", "twin faster than the arm"])
def test_an_arm_follows_a_twin_within_limits(speed: float, panda, home):
    """Through the same filter as a policy: no limit is broken, and a twin that obeys `hold` stays near the arm."""
    config = drill_config(panda.names, mode="tracker", features={})
    runtime = Runtime(config, replace(drill_spec(panda.names), observation={}), panda)
    run = DrillRun(runtime=runtime, arm=SimulatedArm(home), home=home, limits=panda)
    pace = TwinPace(panda.names, PaceConfig(hold_above=0.1, go_below=0.05))
    runtime.command(Event.START)
    twin, goal, apart, held = home.copy(), home + 0.6, [], 0
    for _ in range(600):
        held += pace.hold
        if not pace.hold:
            twin = twin + np.clip(goal - twin, -speed * 0.01, speed * 0.01)
        stamp = run.now_ns
        pace.twin(panda.names, list(twin), stamp_ns=stamp, now_ns=run.now_ns)
        pace.arm(panda.names, list(run.arm.position), now_ns=run.now_ns)
        target = pace.target(run.now_ns)
        if target is not None:
            runtime.track(target, now_ns=run.now_ns)
        run.step()
        apart.append(np.abs(twin - run.arm.position).max())
    assert run.ticks[-1].state is State.AUTONOMOUS, run.ticks[-1].fault
    np.testing.assert_allclose(run.arm.position, goal, atol=0.01)
    assert not any(run.violations().values())
    assert max(apart) < 0.1 + 2 * speed * 0.01
    assert held > 10 if speed > 1 else held <= 2
