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
        Candidates (C, D) of all rounds, and the loss of every piece (C, S).
    """
    low, high = bounds
    across = np.linalg.svd(along[None])[2][1:]
    flat = np.einsum("qd,dsr->qsr", across, slopes).reshape(len(across), -1)
    normal = flat @ flat.T
    normal += _DAMPING * np.diag(np.diag(normal)) + 1e-9 * np.eye(len(across))
    offsets = np.linspace(-reach, reach, points)[:, None]
    now = best + offsets * along
    now = now[np.all((now >= low) & (now <= high), axis=1)]
    candidates, losses = [best[None]], [np.square(roll([best])).sum(axis=2)]
    for last in range(rounds, -1, -1):
        found = roll(list(now))
        candidates.append(now)
        losses.append(np.square(found).sum(axis=2))
        if last:
            gradient = flat @ found.reshape(len(now), -1).T
            now = np.clip(now - _SHORTER * np.linalg.solve(normal, gradient).T @ across, low, high)
    return np.concatenate(candidates), np.concatenate(losses)


def vote(
    candidates: np.ndarray, losses: np.ndarray, *, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Let resampled pieces choose among candidates.

    Args:
        candidates: (C, D).
        losses: Of every piece (C, S).
        resamples: How many votes.
        seed: Of the resampling.

    Returns:
        Mean and standard deviation of the choices, (D,) each.
    """
    random, count = np.random.default_rng(seed), losses.shape[1]
    weights = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    chosen = candidates[np.argmin(weights @ losses.T, axis=1)]
    return chosen.mean(axis=0), chosen.std(axis=0)
