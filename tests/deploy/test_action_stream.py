"""Actions as targets in time: control steps keep their grid, and late ticks do not break it."""

import numpy as np
import pytest

from robot_datasets.features import Feature
from robot_deploy.action_stream import ActionStream
from robot_deploy.motion.reference import ActionReference
from robot_deploy.motion.tracking import Motion
from robot_policies.execution import build_executor
from robot_policies.spec import PolicySpec

STEP_NS = 50_000_000
PERIOD_NS = 10_000_000


@pytest.fixture
def stream() -> ActionStream:
    """Actions 0.1, 0.2, 0.3, ... of one joint at 20 Hz."""
    spec = PolicySpec(
        observation={}, action=Feature(dtype="float32", shape=(1,)), n_obs_steps=1, horizon=16,
        n_action_steps=8, fps=20.0,
    )  # fmt: skip
    executor = build_executor(None, spec)
    executor.push(0.1 * np.arange(1, 17, dtype=np.float32)[:, None], computed_for_step=0)
    return ActionStream(
        executor, ActionReference(step_time=STEP_NS * 1e-9), order=np.array([0]), step_ns=STEP_NS,
        max_speed=None, velocities=False,
    )  # fmt: skip


def drive(stream: ActionStream, head_ns: int, motion: Motion) -> Motion:
    """One period; the arm does exactly what it is told."""
    target = stream.target(head_ns, PERIOD_NS, motion)
    assert target is not None
    assert target.position is not None
    return target.position[0], target.velocity[0], target.acceleration[0]


def test_an_action_is_reached_at_the_end_of_its_step(stream: ActionStream):
    """After five periods the first, after ten the second."""
    motion = (np.zeros(1), np.zeros(1), np.zeros(1))
    reached = []
    for period in range(10):
        motion = drive(stream, period * PERIOD_NS, motion)
        reached.append(float(motion[0][0]))
    assert reached[4] == pytest.approx(0.1)
    assert reached[9] == pytest.approx(0.2)
    assert np.all(np.diff(reached) > 0)


@pytest.mark.parametrize("skipped", [5, 6, 10, 37])
def test_a_late_tick_begins_a_whole_step_where_it_is(stream: ActionStream, skipped: int):
    """Knots skipped beyond the running step: the next action has a whole step of time from there, not less."""
    motion = (np.zeros(1), np.zeros(1), np.zeros(1))
    for period in range(5):
        motion = drive(stream, period * PERIOD_NS, motion)
    rest = (motion[0], np.zeros(1), np.zeros(1))  # the plan has braked meanwhile
    head = (5 + skipped) * PERIOD_NS
    reached = [float(rest[0][0])]
    for period in range(5):
        rest = drive(stream, head + period * PERIOD_NS, rest)
        reached.append(float(rest[0][0]))
    assert reached[-1] == pytest.approx(0.2)
    assert np.max(np.diff(reached)) < 0.06, "no faster than a step of 0.1 in 50 ms has to be"
