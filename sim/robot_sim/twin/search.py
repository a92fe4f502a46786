"""Least squares over rollouts: drawn candidates find a valley, Levenberg-Marquardt with finite differences walks it.

Candidates are vectors (D,) of which some components may be held. All that a step needs is rolled out in one batch:
the finite differences, then several damping factors and moves along the weakest direction side by side, as a batch
costs little more than one rollout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from robot_sim.twin.valley import Roll, vote, walk

_DAMPING = (0.0, 0.03, 0.3, 3.0)


class Search:
    """The state of a search.

    Args:
        roll: Candidates -> residuals (C, S, R) of S pieces of data; a piece's loss is the sum of squares over R.
        start: Where it starts (D,).
        bounds: Smallest and largest candidates, (D,) each.
        steps: Of the finite differences (D,).
        free: Which components are searched (F,); the others stay as in `start`.

    Attributes:
        best: The best candidate (D,).
        loss: Its mean loss over pieces.
        rounds: Steps taken.
    """

    def __init__(
        self,
        roll: Roll,
        start: np.ndarray,
        *,
        bounds: tuple[np.ndarray, np.ndarray],
        steps: np.ndarray,
        free: Sequence[int],
    ) -> None:
        self._roll, (self.low, self.high) = roll, bounds
        self._free, self._steps = np.array(free), steps[list(free)]
        self.best, self.loss, self.rounds = np.array(start, dtype=float), np.inf, 0
        self._residual: np.ndarray = np.zeros((0, 0))  # (S, R), of `best`
        self._slopes: np.ndarray = np.zeros((0, 0, 0))  # (F, S, R)
        self._choose([self.best])

    def draw(self, population: int, components: Sequence[int], seed: int) -> None:
        """Try candidates whose `components` are drawn from the whole range, the others as they are."""
        among = np.array(components)
        drawn = np.random.default_rng(seed).uniform(size=(population, len(among)))
        candidates = np.tile(self.best, (population, 1))
        candidates[:, among] = self.low[among] + drawn * (self.high - self.low)[among]
        self._choose(list(candidates))

    def step(self) -> bool:
        """Walk once; return whether it was worth it."""
        self.rounds += 1
        self._differentiate()
        before = self.loss
        normal, gradient = self._normal(np.arange(self._slopes.shape[1]))
        small = 1e-9 * np.eye(len(normal))
        scale = np.diag(np.diag(normal)) + small
        ways = [-np.linalg.solve(normal + damping * scale + small, gradient) for damping in _DAMPING]
        self._choose([self._moved(way) for way in [*ways, *self._along(normal)]])
        return self.loss < 0.995 * before

    def walk(self, rounds: int) -> Iterator[float]:
        """Step until it is not worth it any more, or so often; yields the loss after each step."""
        while self.rounds < rounds:
            worth = self.step()
            yield self.loss
            if not worth:
                return

    def along_valley(self, *, reach: float, points: int, resamples: int, seed: int) -> np.ndarray:
        """Settle where in the valley (`robot_sim.twin.valley`); return a standard deviation of each free component."""
        self._differentiate()
        across = self._step_spread(resamples, seed)
        along = np.zeros(len(self.best))
        along[self._free] = self._weakest(self._normal(np.arange(self._slopes.shape[1]))[0])
        slopes = np.zeros((len(self.best), *self._slopes.shape[1:]))
        slopes[self._free] = self._slopes
        bottom, losses = walk(
            self._roll, self.best, slopes, along, (self.low, self.high), reach=reach, points=points
        )
        self.best, chosen = vote(bottom, losses, resamples=resamples, seed=seed + 1)
        self.loss = self.losses([self.best])[0]
        return np.hypot(across, chosen[self._free])

    def losses(self, candidates: list[np.ndarray]) -> list[float]:
        """Return the mean loss of each."""
        return np.square(self._roll(candidates)).sum(axis=2).mean(axis=1).tolist()

    def _moved(self, way: np.ndarray) -> np.ndarray:
        candidate = self.best.copy()
        candidate[self._free] += way
        return np.clip(candidate, self.low, self.high)

    def _along(self, normal: np.ndarray) -> list[np.ndarray]:
        """Steps along the valley, e.g. slower but sooner."""
        weakest = self._weakest(normal)
        longest = float(np.max(np.abs(weakest) / self._steps))
        return [sign * size / longest * weakest for sign in (-1.0, 1.0) for size in (2.0, 5.0)]

    def _weakest(self, normal: np.ndarray) -> np.ndarray:
        """The direction (F,), of length one, in which the data say least."""
        relative = normal * self._steps[:, None] * self._steps
        weakest = np.linalg.eigh(relative)[1][:, 0] * self._steps
        return weakest / np.linalg.norm(weakest)

    def _step_spread(self, resamples: int, seed: int) -> np.ndarray:
        """Spread of one more step for resampled pieces (F,): what the data say across the valley."""
        random, count = np.random.default_rng(seed), self._slopes.shape[1]
        steps = []
        for _ in range(resamples):
            normal, gradient = self._normal(random.integers(count, size=count))
            steps.append(np.linalg.solve(normal + 1e-6 * np.eye(len(normal)), gradient))
        return np.array(steps).std(axis=0)

    def _choose(self, candidates: list[np.ndarray]) -> None:
        found = self._roll(candidates)
        losses = np.square(found).sum(axis=2).mean(axis=1)
        index = int(np.argmin(losses))
        if losses[index] < self.loss:
            self.best, self.loss, self._residual = candidates[index], float(losses[index]), found[index]

    def _differentiate(self) -> None:
        """Forward differences of the residuals, (F, S, R); backwards at the upper bound."""
        signs = np.where(self.best[self._free] + self._steps > self.high[self._free], -1.0, 1.0)
        tries = np.tile(self.best, (len(signs), 1))
        tries[np.arange(len(signs)), self._free] += signs * self._steps
        self._slopes = (self._roll(list(tries)) - self._residual) / (signs * self._steps)[:, None, None]

    def _normal(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (F, F) and gradient (F,) of the least squares over some pieces."""
        slopes = self._slopes[:, chosen].reshape(len(self._free), -1)
        return slopes @ slopes.T / len(chosen), slopes @ self._residual[chosen].ravel() / len(chosen)
