"""The order of training samples, and a loader that reads batches in it, ahead of time if asked.

The order is a pure function of (seed, position): training that was killed continues at the next sample, ranks
agree without talking, and nothing about the order has to be saved but the step. Positions are counted over the
whole run; epoch e is positions ``e * n .. (e + 1) * n - 1`` and visits every sample once::

    position   0 1 2 3 4 5 6 7 | 8 9 ...          n = 8 samples, batch_size = 3, world_size = 1
    epoch      0 0 0 0 0 0 0 0 | 1 1 ...
    batch      [  0 ] [  1 ] [   2   ] [ ...       a batch may straddle two epochs; no sample is dropped

With several ranks, a step takes ``batch_size * world_size`` consecutive positions and rank r the r-th part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


class BatchDataset(Protocol):
    """A dataset that gathers whole batches."""

    def __len__(self) -> int: ...

    def __getitems__(self, windows: Sequence[int] | Int64, draws: Int64 | None = None) -> dict[str, Any]:
        """Return a batch; `draws` (B,) tells how often each window was read before, for what is drawn anew."""
        ...


class SampleOrder(Protocol):
    """Sample numbers of positions; a pure function."""

    def samples(self, positions: Int64) -> Int64:
        """Sample number at each position."""
        ...

    def draws(self, positions: Int64) -> Int64:
        """How often the sample at each position occurred before."""
        ...


class ShuffledOrder:
    """Epoch after epoch, each a new permutation of `n` samples.

    The permutation of the current epoch is held in memory (8 bytes per sample).
    """

    def __init__(self, n: int, seed: int, *, stream: int = 0) -> None:
        if n < 1:
            raise ValueError(f"cannot order {n} samples")
        self.n = n
        self._seed = seed
        self._stream = stream
        self._epoch = -1
        self._permutation: Int64 = np.empty(0, np.int64)

    def samples(self, positions: Int64) -> Int64:
        """Sample number at each position, (N,)."""
        epochs, offsets = np.divmod(positions, self.n)
        first, last = int(epochs.min()), int(epochs.max())
        if first == last:
            return self._of_epoch(first)[offsets]
        samples = np.empty(len(positions), np.int64)
        for epoch in range(first, last + 1):
            here = epochs == epoch
            samples[here] = self._of_epoch(epoch)[offsets[here]]
        return samples

    def draws(self, positions: Int64) -> Int64:
        """Epoch of each position, (N,)."""
        return positions // self.n

    def _of_epoch(self, epoch: int) -> Int64:
        if epoch != self._epoch:
            generator = np.random.default_rng([self._seed, self._stream, epoch])
            self._permutation = generator.permutation(self.n)
            self._epoch = epoch
        return self._permutation


class EpochOrder:
    """Batches of sample numbers as a pure function of the step.

    Args:
        n: Number of samples.
        batch_size: Samples per rank and batch.
        seed: Seed of the order (>= 0).
        rank: This process, 0 <= rank < world_size.
        world_size: Number of processes; in each epoch their samples are disjoint and together complete.
        order: Replaces the shuffled order, e.g. by that of a mixture.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        order: SampleOrder | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"bad batch_size={batch_size}, rank={rank}, world_size={world_size}")
        self.n = n
        self.batch_size = batch_size
        self._order = ShuffledOrder(n, seed) if order is None else order
        self._per_step = batch_size * world_size
        self._offsets = rank * batch_size + np.arange(batch_size, dtype=np.int64)

    def batch(self, step: int) -> Int64:
        """Sample numbers of this rank's batch at `step`, (batch_size,)."""
        return self._order.samples(step * self._per_step + self._offsets)

    def draws(self, step: int) -> Int64:
        """How often each sample of the batch was read before, (batch_size,)."""
        return self._order.draws(step * self._per_step + self._offsets)

    def epoch(self, step: int) -> float:
        """Epochs completed before `step`, fractional."""
        return step * self._per_step / self.n


class Loader:
    """Reads the batches of an order from a dataset.

    Args:
        dataset: What to read from.
        order: Which samples, step by step.
        prefetch: Batches read ahead by a thread; 0 reads in the calling thread. Worth it when images are
            decoded; gathering low-dimensional features is cheaper than handing a batch between threads.
    """

    def __init__(self, dataset: BatchDataset, order: EpochOrder, *, prefetch: int = 0) -> None:
        self.dataset = dataset
        self.order = order
        self._prefetch = prefetch

    def batch(self, step: int) -> dict[str, Any]:
        """The batch of one step."""
        return self.dataset.__getitems__(self.order.batch(step), self.order.draws(step))

    def batches(self, first: int, last: int) -> Generator[dict[str, Any]]:
        """Yield the batches of steps ``first <= step < last``; close the iterator to stop its thread."""
        if self._prefetch < 1:
            for step in range(first, last):
                yield self.batch(step)
            return
        pool = ThreadPoolExecutor(max_workers=1)
        try:
            ahead: deque[Future[dict[str, Any]]] = deque()
            for step in range(first, last):
                # The order keeps a cache, so it is asked here; the thread only reads.
                wanted = self.order.batch(step), self.order.draws(step)
                ahead.append(pool.submit(self.dataset.__getitems__, *wanted))
                if len(ahead) > self._prefetch:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
