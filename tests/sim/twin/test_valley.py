"""A valley is walked to its bottom, and its uncertainty is the data's."""

from __future__ import annotations

import numpy as np

from robot_sim.twin.valley import vote, walk

PIECES = 40
ALONG = np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)


def _valley(seed: int):
    """Residuals that tell the sum of two parameters and a third well, and the difference of the two badly."""
    said = 0.4 + np.random.default_rng(seed).normal(0.0, 1.5, PIECES)

    def roll(candidates):
        x = np.array(candidates)[:, None, :]
        bottom = np.broadcast_to([10.0, 20.0], (len(x), PIECES, 2)) * np.concatenate(
            [x[..., :2].sum(axis=-1, keepdims=True) - 1.0, x[..., 2:] - 0.2], axis=-1
        )
        weak = 0.3 * (x[..., 0] - x[..., 1] - said)
        return np.concatenate([bottom, weak[..., None]], axis=-1)

    return roll, said


def _walked(roll, **options):
    best = np.array([1.1, 0.0, 0.21])  # off the bottom, and off along the valley by 0.5 sqrt(2)
    step = 1e-4
    slopes = np.stack([(roll([best + step * axis]) - roll([best]))[0] / step for axis in np.eye(3)])
    bounds = (np.full(3, -2.0), np.full(3, 2.0))
    return walk(roll, best, slopes, ALONG, bounds, **{"reach": 1.5, "points": 31, **options})


def test_the_pieces_vote_for_the_bottom_and_tell_their_doubt():
    """Mean and spread of the votes are those of the least squares, whose solution is known."""
    for seed in range(3):
        roll, said = _valley(seed)
        candidates, losses = _walked(roll)
        middle, spread = vote(candidates, losses, resamples=400, seed=0)
        exact = np.array([(1 + said.mean()) / 2, (1 - said.mean()) / 2, 0.2])
        deviation = said.std() / np.sqrt(PIECES) / 2
        assert np.allclose(middle, exact, atol=0.06)  # points stand 0.07 apart in each parameter
        assert 0.6 * deviation < spread[0] < 1.5 * deviation
        assert spread[2] < 0.01 * deviation + 1e-3


def test_a_valley_flatter_than_its_roughness_is_not_known():
    """Jumps from point to point, alike for all pieces, do not pass for knowledge."""
    points = np.linspace(-1.0, 1.0, 21)[:, None]
    jumps = np.random.default_rng(5).normal(0.0, 0.1, (21, 1))
    losses = 1.0 + 0.01 * points**2 + jumps + np.zeros((1, PIECES))
    assert vote(points, losses, resamples=400, seed=0)[1][0] > 0.3


def test_points_keep_inside_the_bounds():
    """A valley that leaves the range is walked as far as the range goes."""
    roll, _ = _valley(0)
    candidates, losses = _walked(roll, reach=10.0, points=9)
    assert np.abs(candidates).max() <= 2.0
    assert len(candidates) == len(losses)
    assert losses.shape[1] == PIECES


def test_a_vote_is_repeatable():
    """The same seed chooses the same."""
    roll, _ = _valley(1)
    candidates, losses = _walked(roll, points=5)
    first, second = (vote(candidates, losses, resamples=50, seed=4) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
