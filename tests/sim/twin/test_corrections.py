"""Corrections pull simulated bodies to where they are observed."""

from __future__ import annotations

import numpy as np
import pytest

from robot_datasets.mapping import ConfigError
from robot_sim.rotations import yaw_to_quaternion
from robot_sim.twin.cell import load_cell
from robot_sim.twin.correction import build_correction, clipped, correction_names
from robot_sim.twin.observed import ObservationError, ObservedPose, ObservedState
from robot_sim.twin.twin import Twin

COVARIANCE = np.diag([1e-6] * 3 + [1e-4] * 3)


@pytest.fixture(scope="module")
def cell():
    """The cell that comes along."""
    return load_cell("tabletop_push_t")


def _seen(stamp_ns: int, position, yaw: float) -> ObservedState:
    pose = ObservedPose(position=np.array(position), quaternion=yaw_to_quaternion(yaw), covariance=COVARIANCE)
    return ObservedState(stamp_ns=stamp_ns, objects={"block": pose})


def _settled(cell, kind: str, *, start, end, ticks: int = 60) -> tuple[Twin, list[np.ndarray]]:
    """A twin whose block was seen at `start` and is then seen at `end` (x, y, yaw); and its way."""
    twin = Twin(cell, corrections=[build_correction({"type": kind})])
    twin.tick([_seen(0, [start[0], start[1], 0.02], start[2])])
    way = []
    for _ in range(ticks):
        twin.tick([_seen(twin.time_ns, [end[0], end[1], 0.02], end[2])])
        way.append(twin.world.pose("block")[0])
    return twin, way


def test_a_force_brings_the_block_to_where_it_is_seen(cell):
    """An error of 3 cm and 0.3 rad is gone within a second, to under 2 mm, and nothing jumps."""
    twin, way = _settled(cell, "force", start=(0.0, 0.0, 0.0), end=(0.03, 0.0, 0.3))
    assert np.linalg.norm(way[-1][:2] - [0.03, 0.0]) < 0.002
    assert np.abs(np.diff(np.array(way), axis=0)).max() < 0.01
    assert twin.report().bodies["block"].status == "tracking"


def test_without_correction_the_block_stays(cell):
    """The correction `none` leaves the physics alone, and the report says how far off it is."""
    twin, way = _settled(cell, "none", start=(0.0, 0.0, 0.0), end=(0.03, 0.0, 0.0))
    assert np.linalg.norm(way[-1][:2]) < 1e-3
    assert twin.report().bodies["block"].error[0] == pytest.approx(0.03, abs=0.002)


def test_a_reset_jumps(cell):
    """The baseline puts the block where it is seen, in one tick."""
    _, way = _settled(cell, "reset", start=(0.0, 0.0, 0.0), end=(0.03, 0.0, 0.0), ticks=12)
    assert np.abs(np.diff(np.array(way), axis=0)).max() > 0.01
    assert np.linalg.norm(way[-1][:2] - [0.03, 0.0]) < 0.003


def test_a_block_that_is_lost_is_put_back(cell):
    """An error beyond the cell's bound is reported as lost and ends in one teleport."""
    twin, _ = _settled(cell, "force", start=(0.0, 0.0, 0.0), end=(0.0, 0.0, 0.0), ticks=6)
    states = [
        twin.tick([_seen(twin.time_ns, [0.1, 0.1, 0.02], 1.0)]).bodies["block"].status for _ in range(6)
    ]
    assert states.count("lost") == 1
    assert np.linalg.norm(twin.world.pose("block")[0][:2] - 0.1) < 0.003


def test_a_block_out_of_sight_is_blind(cell):
    """Without observations for half a second the block is simulated on and its uncertainty grows."""
    twin, _ = _settled(cell, "force", start=(0.0, 0.0, 0.0), end=(0.0, 0.0, 0.0), ticks=6)
    before = np.trace(twin.report().bodies["block"].covariance)
    report = [twin.tick() for _ in range(40)][-1]
    assert report.lost == ("block",)
    assert report.bodies["block"].status == "blind"
    assert np.trace(report.bodies["block"].covariance) > before


def test_an_unknown_kind_names_the_nearest():
    """A correction that does not exist is one line with what does."""
    with pytest.raises(ConfigError, match="did you mean 'force'"):
        build_correction({"type": "forces"})
    with pytest.raises(ConfigError, match="did you mean 'frequency'"):
        build_correction({"type": "force", "frequenzy": 3.0})
    assert {"none", "reset", "force"} <= set(correction_names())


def test_an_unknown_object_is_refused(cell):
    """An observation of something else is an error, not silence."""
    pose = _seen(0, [0, 0, 0.02], 0.0).objects["block"]
    with pytest.raises(ObservationError, match="block"):
        Twin(cell).tick([ObservedState(stamp_ns=0, objects={"blok": pose})])


def test_an_observation_must_be_finite():
    """NaN never reaches the filter."""
    with pytest.raises(ObservationError, match="finite"):
        _seen(0, [np.nan, 0, 0.02], 0.0)


def test_clipping_keeps_the_direction():
    """A vector too long keeps its direction."""
    np.testing.assert_allclose(clipped(np.array([3.0, 4.0, 0.0]), 1.0), [0.6, 0.8, 0.0])


def test_time_that_was_skipped_makes_uncertain_and_then_blind(cell):
    """A short gap leaves the block known but less surely; after a long one it is blind until it is seen again."""
    twin, _ = _settled(cell, "force", start=(0.0, 0.0, 0.0), end=(0.0, 0.0, 0.0))
    before = twin.report().bodies["block"]
    twin.skip(20)
    after = twin.report().bodies["block"]
    assert after.status == "tracking"
    assert after.covariance[0, 0] > before.covariance[0, 0]
    twin.skip(3_600 * 60)
    assert twin.tick([]).bodies["block"].status == "blind"
    twin.tick([_seen(twin.time_ns, [0.02, 0.0, 0.02], 0.0)])
    assert twin.report().bodies["block"].status == "tracking"
    assert twin.world.finite
