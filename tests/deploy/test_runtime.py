"""The runtime against a simulated arm: faults end in a stop within limits, and runs repeat to the bit."""

import numpy as np
import pytest

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError
from robot_deploy.drill import (
    FAULTS,
    DrillRun,
    SimulatedArm,
    drill_config,
    drill_spec,
    drill_table,
    run_drill,
    start_drill,
)
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.replay import Journal, replay, tick_digest
from robot_deploy.runtime import Runtime
from robot_deploy.supervision.states import Event, State, TransitionError

NOTICED = {
    "NaN chunk": "NaN or infinity",
    "chunk far outside the limits": "rule 'velocity'",
    "chunk of the wrong shape": "has shape",
    "no joint states": "feedback",
    "joint states NaN": "feedback",
    "joint states frozen": "rule 'deviation'",
    "joint states 400 ms late": "feedback",
    "inference too slow": "inference deadline",
    "inference died": "status 9",
    "clock forwards 1 h": "clock jump",
    "clock back 1 s": "clock jump",
    "ticks every 200 ms": "command rate",
    "second publisher": "publishers",
    "emergency stop": "emergency stop",
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_in_a_stop_within_limits(name: str, panda, home):
    """Rest within 250 ms of being noticed, no sample beyond a limit, and the reason is named."""
    result = run_drill(name, panda, home, after=17, ticks=90)
    assert result.violations == 0, drill_table([result])
    assert result.braking_ms <= 250.0
    assert NOTICED.get(name, "") in result.reason
    assert result.detected_ms <= 550.0 or name == "runtime killed"


def test_the_arm_follows_the_policy(panda, home):
    """Without a fault the arm moves all the time, follows its commands, and nothing is stopped."""
    run = start_drill(panda, home)
    run.run(150)
    assert {tick.state for tick in run.ticks[-200:]} == {State.AUTONOMOUS}
    assert run.ticks[-1].deviation < 0.05
    assert not any(run.violations().values())
    moved = np.ptp([row[1] for row in run.path], axis=0)
    assert (moved > 0.2).all()
    assert run.runtime.safety.stopped_by[0] == -1


def test_a_fault_latches_until_an_explicit_reset(panda, home):
    """After a fault nothing starts by itself; a reset is refused while moving, and then a start works again."""
    run = start_drill(panda, home)
    run.runtime.infer_failed("gone")
    run.step()
    with pytest.raises(UserError, match="still braking"):
        run.runtime.command(Event.RESET)
    run.run(60)
    assert run.runtime.machine.fault == "inference: gone"
    with pytest.raises(TransitionError):
        run.runtime.command(Event.START)
    run.runtime.command(Event.RESET)
    run.runtime.command(Event.START)
    run.run(60)
    assert run.ticks[-1].state is State.AUTONOMOUS
    assert not any(run.violations().values())


def test_a_person_takes_over_and_hands_back(panda, home):
    """Pause, recovery, correction, resume: frames are tagged, and the motion stays within limits throughout."""
    run = start_drill(panda, home)
    for event, tag in (
        (Event.PAUSE, ""), (Event.RECOVER, "recovery"), (Event.CORRECT, "correction"),
        (Event.PAUSE, ""), (Event.RESUME, "policy"),
    ):  # fmt: skip
        run.runtime.command(event)
        for _ in range(60):
            run.runtime.track(home + 0.2, now_ns=run.now_ns)
            run.step()
        assert run.ticks[-1].segment == tag
        if tag == "correction":
            np.testing.assert_allclose(run.arm.position, home + 0.2, atol=0.01)
    assert not any(run.violations().values())


@pytest.mark.parametrize("event", [Event.RECOVER, Event.RESUME])
def test_a_robot_moved_by_hand_goes_on_from_where_it_is(event: Event, panda, home):
    """While paused the arm is pushed away by 0.4 rad: no fault, and the next motion begins at the new place."""
    run = start_drill(panda, home)
    run.runtime.command(Event.PAUSE)
    run.run(60)
    run.arm.trajectory, pushed = None, home - 0.4
    run.arm.position, run.arm.velocity = pushed.copy(), np.zeros(7)
    run.run(20)
    assert run.ticks[-1].state is State.PAUSED
    assert not run.ticks[-1].send
    begun = len(run.path)
    run.runtime.command(event)
    for _ in range(40):
        run.runtime.track(pushed + 0.1, now_ns=run.now_ns)
        run.step()
    assert run.ticks[-1].fault == ""
    np.testing.assert_allclose(run.path[begun][1], pushed, atol=1e-9)
    assert np.abs(run.arm.position - pushed).min() > 0.02


def test_a_persons_leader_that_falls_silent_stops_the_arm(panda, home):
    """In recovery, targets that get old are not followed any longer."""
    run = start_drill(panda, home)
    run.runtime.command(Event.PAUSE)
    run.run(40)
    run.runtime.command(Event.RECOVER)
    run.runtime.track(home + 0.5, now_ns=run.now_ns)
    run.run(60)
    last = run.ticks[-1].trajectory
    assert last is not None
    assert not last.velocities.any()
    assert np.abs(run.arm.position - home - 0.5).min() > 0.05


@pytest.mark.parametrize("mode", ["dry_run", "shadow"])
def test_nothing_is_sent_in_dry_run_and_shadow(mode: str, panda, home):
    """The whole pipeline runs and its trajectories are there to look at, but none is to be sent."""
    run = start_drill(panda, home, mode=mode)
    run.run(50)
    assert run.ticks[-1].state is State.AUTONOMOUS
    assert run.ticks[-1].trajectory is not None
    assert not any(tick.send for tick in run.ticks)
    np.testing.assert_array_equal(run.arm.position, home)


def test_the_arm_tracks_a_twin(panda, home):
    """In tracker mode the joints of a twin are followed; a twin that is far away at the start is a fault."""
    runtime = Runtime(drill_config(panda.names, mode="tracker"), drill_spec(panda.names), panda)
    run = DrillRun(runtime, SimulatedArm(home.copy()), home, panda)
    run.run(5)
    runtime.command(Event.START)
    for number in range(200):
        runtime.track(home + 0.2 * np.sin(number * 0.02), now_ns=run.now_ns)
        run.step()
    assert run.ticks[-1].state is State.AUTONOMOUS
    assert np.ptp([row[1][0] for row in run.path]) > 0.2
    assert not any(tick.request for tick in run.ticks)
    far = Runtime(drill_config(panda.names, mode="tracker"), drill_spec(panda.names), panda)
    run = DrillRun(far, SimulatedArm(home.copy()), home, panda)
    run.run(5)
    far.command(Event.START)
    far.track(home + 0.3, now_ns=run.now_ns)
    run.step()
    assert "twin is 0.300 away" in run.ticks[-1].fault


def test_a_run_repeats_to_the_bit(panda, home):
    """Replaying the journal of a run with a fault and a recovery gives byte-equal trajectories and windows."""

    def fresh() -> Runtime:
        return Runtime(drill_config(panda.names), drill_spec(panda.names), panda)

    journal = Journal(fresh())
    run = DrillRun(journal, SimulatedArm(home.copy()), home, panda)  # type: ignore[arg-type]
    run.run(10)
    journal.command(Event.START)
    run.run(60)
    journal.publishers(3)
    run.run(40)
    again = replay(journal.calls, fresh())
    assert len(again) == len(run.ticks)
    assert tick_digest(again) == tick_digest(run.ticks)
    assert run.ticks[-1].state is State.FAULT


def test_a_robot_outside_its_limits_does_not_start(panda, home):
    """The start is refused with the joint's name when the robot stands outside its limits."""
    outside = home.copy()
    outside[3] = 0.0
    runtime = Runtime(drill_config(panda.names), drill_spec(panda.names), panda)
    run = DrillRun(runtime, SimulatedArm(outside), home, panda)
    run.run(5)
    runtime.command(Event.START)
    run.run(5)
    assert "joint 'panda_joint4' is at 0.0000" in run.ticks[-1].fault
    assert not any(tick.send for tick in run.ticks)


def test_every_executor_drives_the_arm(panda, home):
    """Receding horizon, which waits for chunks, and ensembling work with the same runtime."""
    for executor in ({"type": "receding_horizon"}, {"type": "temporal_ensemble"}):
        run = start_drill(panda, home, executor=executor)
        run.run(100)
        assert run.ticks[-1].state is State.AUTONOMOUS
        assert not any(run.violations().values())


def test_a_chunk_that_is_no_longer_wanted_is_dropped(panda, home):
    """Chunks of a request from before a pause, or of none, are counted and change nothing."""
    run = start_drill(panda, home)
    run.runtime.chunk(np.full((16, 7), np.nan), ticket=10**6)
    assert run.runtime.late_chunks == 1
    assert run.runtime.machine.state is State.AUTONOMOUS


def test_a_policy_that_does_not_fit_is_refused(panda):
    """Other joint names, a rate above the command rate, or feedback without a joint fail before anything moves."""
    renamed = MotionLimits(
        names=("x", *panda.names[1:]), lower=panda.lower, upper=panda.upper,
        velocity=panda.velocity, acceleration=panda.acceleration, jerk=panda.jerk,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="the policy's action"):
        Runtime(drill_config(panda.names), drill_spec(panda.names), renamed)
    with pytest.raises(ConfigError, match="is below the policy"):
        Runtime(drill_config(panda.names, command_rate=15.0), drill_spec(panda.names), panda)
    with pytest.raises(ConfigError, match="feedback: 'arm' is no source"):
        drill_config(panda.names, feedback="arm")
