"""The loop keeps its deadlines by any clock, and the filter does with late measurements what the formulas say."""

from __future__ import annotations

import numpy as np
import pytest

from robot_datasets.mapping import ConfigError
from robot_sim.twin.cell import load_cell
from robot_sim.twin.history import PoseHistory
from robot_sim.twin.loop import MOST_BEHIND, TwinLoop
from robot_sim.twin.pose_filter import FilterConfig, PoseFilter
from robot_sim.twin.twin import Twin

COVARIANCE = np.diag([9e-6] * 3 + [9e-4] * 3)


class SlowClock:
    """A clock on which ticks take a given time."""

    def __init__(self, busy_ns: list[int]) -> None:
        self.time_ns, self._busy = 0, busy_ns
        self._asked = 0

    def now_ns(self) -> int:
        """Every third question follows a tick's work."""
        self._asked += 1
        if self._asked > 1 and self._asked % 2 == 1:
            self.time_ns += self._busy.pop(0) if self._busy else 0
        return self.time_ns

    def sleep_until(self, time_ns: int) -> None:
        """Arrive at once."""
        self.time_ns = max(self.time_ns, time_ns)


@pytest.fixture(scope="module")
def twin() -> Twin:
    """A twin of the cell that comes along."""
    return Twin(load_cell("tabletop_push_t"))


def test_deadlines_do_not_drift(twin):
    """Ticks begin a period apart whatever each takes below it; one that takes longer is counted."""
    busy = [2_000_000] * 5 + [20_000_000] + [2_000_000] * 4
    loop = TwinLoop(twin, lambda now_ns: [], clock=SlowClock(busy))
    timing = loop.run(10)
    assert timing.overruns == 1
    assert timing.skipped == 0
    starts = np.array(timing.starts_ns)
    assert starts[-1] - starts[0] == 9 * twin.cell.tick_ns


def test_what_cannot_be_caught_up_is_given_up(twin):
    """After a stall the loop does not run after the clock, and says how many ticks it gave up."""
    stall = (MOST_BEHIND + 20) * twin.cell.tick_ns
    timing = TwinLoop(twin, lambda now_ns: [], clock=SlowClock([stall])).run(8)
    assert timing.skipped >= 20
    assert timing.to_dict()["ticks"] == 8


def test_the_twins_time_stays_the_clocks(twin):
    """Ticks that were given up passed for the twin, too: what is stamped now is not from its future."""
    clock, began_ns = SlowClock([(MOST_BEHIND + 20) * twin.cell.tick_ns]), twin.time_ns
    TwinLoop(twin, lambda now_ns: [], clock=clock).run(8)
    assert abs((twin.time_ns - began_ns) - clock.time_ns) <= twin.cell.tick_ns


def test_a_loop_without_an_end_is_told_to_stop(twin):
    """It ends before the tick at which it is told."""
    told = iter([False, False, False, True])
    timing = TwinLoop(twin, lambda now_ns: [], clock=SlowClock([])).run(stop=lambda: next(told))
    assert timing.ticks == 3


def test_the_filter_finds_a_constant_error():
    """From noisy observations of a resting body the error is found better than one observation tells."""
    random, known = np.random.default_rng(0), PoseFilter()
    truth = np.array([0.02, -0.01, 0.0, 0.0, 0.0, 0.3])
    for _ in range(60):
        noise = np.sqrt(np.diag(COVARIANCE)) * random.standard_normal(6)
        known.update(truth + noise, COVARIANCE, age=0.08)
        known.predict(1 / 30)
    assert np.abs(known.error - truth)[:3].max() < 0.0015
    assert np.sqrt(known.covariance[0, 0]) < 0.0015


def test_corrections_are_taken_off():
    """What a correction moved is no error any more, at once, without waiting for an observation."""
    known = PoseFilter()
    known.update(np.array([0.02, 0, 0, 0, 0, 0]), 1e-4 * COVARIANCE, age=0.0)
    known.predict(1 / 60, moved=np.array([0.015, 0, 0, 0, 0, 0]))
    assert known.error[0] == pytest.approx(0.005, abs=1e-4)


def test_a_late_measurement_of_a_growing_error_counts_for_now():
    """An error that grows steadily is known as it is now, though every observation is 100 ms old."""
    known, speed = PoseFilter(FilterConfig(drift=0.05, settle=5.0)), 0.05
    for step in range(120):
        now = step / 60
        if step % 2 == 0:
            known.update(np.array([speed * (now - 0.1), 0, 0, 0, 0, 0]), 1e-2 * COVARIANCE, age=0.1)
        known.predict(1 / 60)
    assert known.error[0] == pytest.approx(speed * 2.0, abs=0.002)


def test_one_outlier_is_refused_and_three_are_believed():
    """A single wild observation changes nothing; three that agree mean that the body was moved."""
    known = PoseFilter()
    for _ in range(20):
        known.update(np.zeros(6), COVARIANCE, age=0.0)
        known.predict(1 / 30)
    wild = np.array([0.1, 0, 0, 0, 0, 0])
    assert known.update(wild, COVARIANCE, age=0.0) == "outlier"
    assert abs(known.error[0]) < 1e-3
    assert known.update(wild, COVARIANCE, age=0.0) == "outlier"
    assert known.update(wild, COVARIANCE, age=0.0) == "moved"
    assert known.error[0] == pytest.approx(0.1, abs=0.005)


def test_a_filter_out_of_range_is_refused():
    """Numbers that make no filter are one line."""
    with pytest.raises(ConfigError, match=r"filter\.settle"):
        FilterConfig(settle=0.0)


def test_history_interpolates_and_sums_corrections():
    """Between two entries poses are interpolated; the corrections since then are summed."""
    history, still = PoseHistory(), np.array([1.0, 0, 0, 0])
    for k in range(3):
        moved = {} if k == 0 else {"a": np.array([0.01, 0, 0, 0, 0, 0])}
        history.append(k * 100, {"a": (np.array([0.1 * k, 0, 0]), still)}, moved)
    position, _, since = history.at(150, "a") or (None, None, None)
    assert position is not None and since is not None  # noqa: PT018
    assert position[0] == pytest.approx(0.15)
    assert since[0] == pytest.approx(0.005)
    assert history.at(-1, "a") is None
