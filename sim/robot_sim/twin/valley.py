"""The direction in which recordings say least of the parameters, walked along instead of believed to be straight.

In slow pushing the block goes where the rod goes: much friction with little mass fits nearly as well as the reverse.
Gauss-Newton stops somewhere in such a valley, as finite differences of contacts are rough and make it look steeper than
it is, and an uncertainty made of them is several times too small. So points are set along the valley, each is brought
to the bottom with the other directions, and the pieces vote: resampled pieces (bootstrap) choose their best point, the
choices' mean is the estimate (bagging) and their spread its uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Roll = Callable[[list[np.ndarray]], np.ndarray]
_SHORTER = 0.8  # of each step across the valley, as slopes are those of one point
_DAMPING = 0.05
_TYPICAL_BEND = 0.6745 * np.sqrt(6.0)  # median of |second difference| of independent errors of size one


def walk(
    roll: Roll,
    best: np.ndarray,
    slopes: np.ndarray,
    along: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    *,
    reach: float,
    points: int,
    rounds: int = 3,
) -> tuple[np.ndarray, np.ndarray]:
    """Set points along a valley and bring each to its bottom.

    Args:
        roll: Candidates (D,) -> residuals (C, S, R) of S pieces.
        best: Where the valley was found (D,).
        slopes: Derivatives of the residuals there (D, S, R); kept for all points (chord steps).
        along: Direction of the valley (D,), of length one.
        bounds: Smallest and largest parameters, (D,) each.
        reach: How far the points go to each side, in units of the parameters.
        points: How many, `best` among them if odd.
        rounds: Steps across the valley.

    Returns:
        Points (P, D) in order along the valley, those within bounds, and the loss of every piece there (P, S).
    """
    low, high = bounds
    across = np.linalg.svd(along[None])[2][1:]
    flat = np.einsum("qd,dsr->qsr", across, slopes).reshape(len(across), -1)
    normal = flat @ flat.T
    normal += _DAMPING * np.diag(np.diag(normal)) + 1e-9 * np.eye(len(across))
    now = best + np.linspace(-reach, reach, points)[:, None] * along
    now = now[np.all((now >= low) & (now <= high), axis=1)]
    lowest, losses = now.copy(), np.full((len(now), slopes.shape[1]), np.inf)
    for last in range(rounds, -1, -1):
        found = roll(list(now))
        each = np.square(found).sum(axis=2)
        better = each.mean(axis=1) < losses.mean(axis=1)
        lowest[better], losses[better] = now[better], each[better]
        if last:
            gradient = flat @ found.reshape(len(now), -1).T
            now = np.clip(now - _SHORTER * np.linalg.solve(normal, gradient).T @ across, low, high)
    return lowest, losses


def vote(
    points: np.ndarray, losses: np.ndarray, *, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Let resampled pieces choose where in the valley.

    Losses jump from point to point, as contacts are met or missed, and these jumps are the same for every resample. So
    their size, from second differences along the valley, is drawn anew for each choice: where the valley is flatter
    than they are, choices spread over all of it.

    Args:
        points: (P, D), in order along the valley, three or more.
        losses: Of every piece (P, S).
        resamples: How many votes.
        seed: Of the resampling.

    Returns:
        Mean and standard deviation of the choices, (D,) each.
    """
    random, count = np.random.default_rng(seed), losses.shape[1]
    bends = np.abs(np.diff(losses.mean(axis=1), n=2))
    rough = float(np.median(bends)) / _TYPICAL_BEND
    weights = random.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    drawn = weights @ losses.T + rough * random.standard_normal((resamples, len(points)))
    chosen = points[np.argmin(drawn, axis=1)]
    return chosen.mean(axis=0), chosen.std(axis=0)
