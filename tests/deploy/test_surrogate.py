"""The surrogate's controllers behave as ros2_controllers do, and its judge sees what is wrong."""

import numpy as np
import pytest

from robot_deploy.motion.limits import MotionLimits
from robot_deploy.surrogate.audit import CommandAudit
from robot_deploy.surrogate.controllers import ForwardController, JointTrajectoryController

MS = 1_000_000
NAMES = ("a", "b")


def _take(
    controller: JointTrajectoryController, *, start: int = 0, now: int = 1_000 * MS, names=NAMES, velocities=None,
    positions=((0.0, 0.0), (1.0, 2.0)), times=(0, 100 * MS),
) -> bool:  # fmt: skip
    q = np.array(positions)
    v = np.zeros_like(q) if velocities is None else np.array(velocities)
    return controller.take(names, start, np.array(times), q, v, None, now_ns=now)


def test_positions_and_velocities_are_joined_by_cubics():
    """Half way of a motion from rest to rest is half the distance, at 1.5 times the mean speed."""
    controller = JointTrajectoryController(NAMES)
    assert _take(controller)
    q, v, a = controller.at(1_050 * MS)
    np.testing.assert_allclose(q, [0.5, 1.0])
    np.testing.assert_allclose(v, [15.0, 30.0])
    np.testing.assert_allclose(a, 0.0, atol=1e-9)
    np.testing.assert_allclose(controller.at(2_000 * MS)[0], [1.0, 2.0])


def test_joints_come_in_any_order():
    """The names of the message say which column is whose."""
    controller = JointTrajectoryController(NAMES)
    _take(controller, names=("b", "a"))
    np.testing.assert_allclose(controller.at(3_000 * MS)[0], [2.0, 1.0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"names": ("a", "c")}, "joints"),
        ({"times": (0, 0)}, "do not increase"),
        ({"start": 1 * MS}, "past"),
        ({"velocities": ((0.0, 0.0), (0.0, 1.0))}, "not zero"),
    ],
)
def test_a_bad_trajectory_is_rejected(changes: dict, said: str):
    """The old trajectory goes on, and the reason is kept."""
    controller = JointTrajectoryController(NAMES)
    controller.hold(np.array([0.3, 0.4]))
    assert not _take(controller, **changes)
    assert said in controller.rejected[-1]
    np.testing.assert_allclose(controller.at(5_000 * MS)[0], [0.3, 0.4])


def test_nan_is_not_rejected():
    """As in ros2_controllers: limits and NaN are the sender's business, and the judge's."""
    controller = JointTrajectoryController(NAMES)
    assert _take(controller, positions=((0.0, 0.0), (np.nan, 1.0)))
    assert np.isnan(controller.at(1_050 * MS)[0][0])


def test_the_forward_controller_latches_what_is_finite():
    """Another size and NaN change nothing; a command stays for ever."""
    controller = ForwardController(NAMES)
    assert controller.take(np.array([1.0, 2.0]))
    assert not controller.take(np.array([1.0]))
    assert not controller.take(np.array([1.0, np.nan]))
    np.testing.assert_allclose(controller.path(np.array([0, 10**15]))[0], [[1.0, 2.0]] * 2)


@pytest.fixture
def judge() -> CommandAudit:
    """Limits of 1 in everything, 10 for jerk."""
    one = np.ones(2)
    return CommandAudit(
        MotionLimits(names=NAMES, lower=-one, upper=one, velocity=one, acceleration=one, jerk=10 * one)
    )


def _look(judge: CommandAudit, q: list[float], v: list[float], a: list[float]) -> dict[str, int]:
    times = 10**9 + np.arange(len(q)) * MS
    judge.look(times, tuple(np.array([x, x]).T for x in (q, v, a)))
    return {name: n for name, n in judge.violations.items() if n}


@pytest.mark.parametrize(
    ("q", "v", "a", "kinds"),
    [
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0], set()),
        ([1.5, 1.5], [0.0, 0.0], [0.0, 0.0], {"position"}),
        ([0.0, 0.0], [2.0, 2.0], [0.0, 0.0], {"velocity"}),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.5], {"jerk"}),
        ([0.0, 0.0], [0.0, 0.0], [1.5, 1.5], {"acceleration"}),
        ([0.0, 0.1], [0.0, 0.0], [0.0, 0.0], {"step"}),
        ([0.0, np.nan], [0.0, 0.0], [0.0, 0.0], {"position", "step"}),
    ],
)
def test_the_judge_names_what_is_beyond(judge: CommandAudit, q, v, a, kinds: set[str]):
    """Each kind is counted for itself; a NaN is beyond."""
    assert set(_look(judge, q, v, a)) == kinds


def test_the_judge_compares_across_calls(judge: CommandAudit):
    """A jump between two calls is a step, unless the arm was put somewhere else."""
    _look(judge, [0.0], [0.0], [0.0])
    judge.look(np.array([10**9 + 5 * MS]), tuple(np.full((1, 2), x) for x in (0.5, 0.0, 0.0)))  # type: ignore[arg-type]
    assert judge.violations["step"] == 2
    judge.forget()
    judge.look(np.array([10**9 + 6 * MS]), tuple(np.full((1, 2), x) for x in (-0.5, 0.0, 0.0)))  # type: ignore[arg-type]
    assert judge.violations["step"] == 2


def test_the_twins_cell_keeps_its_clock():
    """Asked for a moment ago it says nothing new; stamps never go back; what is too late is not simulated."""
    from robot_deploy.surrogate.twin_cell import TwinCell
    from robot_sim.twin.cell import load_cell

    cell, now_ns, stamps = TwinCell(load_cell("tabletop_push_t")), 10**18, []
    for step_ns in (8_000_000, 8_000_000, -5_000_000, 8_000_000, 3_000_000_000, 8_000_000):
        now_ns += step_ns
        stamps += [stamp for stamp, message in cell.advance(now_ns) if message.joints is not None]
    assert np.all(np.diff(stamps) > 0)
    assert stamps[-1] <= now_ns
    assert cell.skipped_ns == pytest.approx(2_800_000_000, abs=20_000_000)
    cell.advance(now_ns - 60 * 10**9)
    late = [stamp for stamp, _ in cell.advance(now_ns - 60 * 10**9 + 16_000_000)]
    assert late
    assert late[-1] <= now_ns - 59 * 10**9
