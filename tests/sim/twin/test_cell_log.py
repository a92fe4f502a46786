"""The surrogate speaks as a robot would, and what it says can be played back to a twin."""

from __future__ import annotations

import numpy as np
import pytest

from robot_sim.twin.cell import load_cell
from robot_sim.twin.cell_log import LogError, play, read_log, write_log
from robot_sim.twin.recording import record_pushes
from robot_sim.twin.surrogate import SurrogateCell, SurrogateConfig
from robot_sim.twin.twin import Twin

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def cell():
    """The cell that comes along."""
    return load_cell("tabletop_push_t")


@pytest.fixture(scope="module")
def log(cell):
    """Two seconds of pushing."""
    return record_pushes(cell, SurrogateConfig(), seed=3, seconds=2.0)


def test_messages_come_late_at_their_rates(log):
    """Joints come at 125 Hz at once, poses at 30 Hz and 80 ms late."""
    joints, poses = np.array(log.joints), np.array(log.objects["block"])
    assert len(joints) == pytest.approx(250, abs=2)
    assert len(poses) == pytest.approx(58, abs=2)
    assert np.all(np.abs(joints[:, 0] - joints[:, 1]) <= 4_000_000)
    assert np.all(np.abs(poses[:, 0] - poses[:, 1] - 0.08 * SECOND) <= 4_000_000)


def test_poses_are_noisy_but_not_biased(cell):
    """The noise of a resting block is the configured one."""
    surrogate = SurrogateCell(cell, SurrogateConfig(object_rate=125.0))
    seen = [m.objects["block"].position for m in surrogate.advance(3 * SECOND) if m.objects]
    offsets = np.array(seen) - surrogate.truth("block")[0]
    assert offsets[:, :2].std() == pytest.approx(0.003, rel=0.2)
    assert np.abs(offsets.mean(axis=0)).max() < 0.001


def test_dropouts_and_hiding(cell):
    """A share of the poses never arrives, and none while somebody stands before the camera."""
    surrogate = SurrogateCell(cell, SurrogateConfig(dropout=0.5))
    assert 15 <= sum(bool(m.objects) for m in surrogate.advance(2 * SECOND)) <= 45
    surrogate.hide(1.0)
    later = [m for m in surrogate.advance(3 * SECOND) if m.objects]
    assert all(m.stamp_ns < 2 * SECOND for m in later)


def test_a_command_is_followed_late(cell):
    """The tool moves only after the command latency."""
    surrogate = SurrogateCell(cell, SurrogateConfig(command_latency=0.2))
    start = surrogate.scene.tool
    surrogate.command(start[:2] + 0.05)
    surrogate.advance(round(0.19 * SECOND))
    assert np.linalg.norm(surrogate.scene.tool - start) < 1e-3
    surrogate.advance(SECOND)
    assert np.linalg.norm(surrogate.scene.tool - start) > 0.05


def test_a_log_read_back_gives_the_same_twin(cell, log, tmp_path):
    """Written, read and played, a log leads to the same poses to the last bit, every time."""
    write_log(log, tmp_path / "a.log", cell=cell.name)
    again = read_log(tmp_path / "a.log", cell=cell.name)
    ends = []
    for recording in (log, again):
        twin = Twin(cell)
        reports = list(play(twin, recording))
        ends.append(np.concatenate(twin.world.pose("block")))
    assert len(reports) == 119
    np.testing.assert_array_equal(ends[0], ends[1])


def test_the_twin_stays_in_step_while_the_block_is_pushed(cell, log):
    """With friction 1.8 times and mass 1.4 times what the twin believes, the block is known to 4 mm."""
    twin = Twin(cell)
    truth = np.array(log.truth["block"])
    gaps = []
    for report in play(twin, log):
        index = min(int(np.searchsorted(truth[:, 0], report.time_ns)), len(truth) - 1)
        gaps.append(np.linalg.norm(truth[index, 1:3] - twin.world.pose("block")[0][:2]))
    assert max(gaps[30:]) < 0.004


def test_logs_are_refused_in_one_line(cell, log, tmp_path):
    """A log of another cell, a missing one and one that is there already are errors a person can act on."""
    write_log(log, tmp_path / "a.log", cell=cell.name)
    with pytest.raises(LogError, match="exists"):
        write_log(log, tmp_path / "a.log", cell=cell.name)
    with pytest.raises(LogError, match="of cell 'tabletop_push_t', expected format 1 of 'other'"):
        read_log(tmp_path / "a.log", cell="other")
    with pytest.raises(LogError, match="no readable log"):
        read_log(tmp_path / "b.log", cell=cell.name)
