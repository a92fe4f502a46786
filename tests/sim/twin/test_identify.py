"""Pieces of recordings tell right parameters from wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from robot_datasets.mapping import ConfigError
from robot_sim.twin.cell import load_cell
from robot_sim.twin.cell_log import CellLog
from robot_sim.twin.identify import IdentificationConfig, changed, identify, residuals
from robot_sim.twin.recording import record_pushes
from robot_sim.twin.segments import cut
from robot_sim.twin.surrogate import SurrogateConfig

TRUTH = np.array([1.8, 1.4, 0.75, 0.04])


@pytest.fixture(scope="module")
def pieces():
    """Pieces of three seconds of a surrogate, and the cell."""
    cell = load_cell("tabletop_push_t")
    log = record_pushes(cell, SurrogateConfig(), seed=1, seconds=3.0)
    return cell, cut(cell, [log], "block", most=3)


def test_the_surrogates_own_parameters_fit_best(pieces):
    """The loss of the truth is below that of each parameter changed, and near that of noise alone."""
    cell, found = pieces
    wrong = [TRUTH * [1, 1, factor, 1] for factor in (0.8, 1.25)] + [
        TRUTH * [1, 1, 1, factor] for factor in (0.3, 2.0)
    ]
    cells = [changed(cell, "block", theta) for theta in (TRUTH, np.array([1.0, 1.0, 1.0, 0.0]), *wrong)]
    losses = np.square(residuals(cells, found, "block", joint_noise=0.0015)).sum(axis=2).mean(axis=1)
    assert losses.argmin() == 0
    assert losses[0] < 1.2
    assert losses[1] > 2 * losses[0]


def test_pieces_hold_what_was_commanded_and_seen(pieces):
    """A piece has a command for every 20 ms, measured joints, and poses relative to its start."""
    _, found = pieces
    for piece in found:
        assert piece.goals.shape == (40, 3)
        assert piece.joints.shape == (40, 7)
        assert 20 <= len(piece.seen) <= 26
        assert np.abs(piece.poses[0, :2]).max() < 0.02


def test_without_recordings_there_is_nothing_to_identify():
    """No usable piece is one line that says what to do."""
    with pytest.raises(ConfigError, match="record more pushes"):
        identify(load_cell("tabletop_push_t"), [CellLog(end_ns=0)], "block")
    with pytest.raises(ConfigError, match="population 1"):
        IdentificationConfig(population=1)
