"""Which episodes train and which validate: whole episodes, chosen by a seed.

Neighbouring steps of one episode are near copies of each other, so splitting by step would leak.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError

Int64 = NDArray[np.int64]


def split_episodes(
    n: int, *, val_ratio: float, seed: int, max_train: int | None = None
) -> tuple[Int64, Int64]:
    """Split `n` episodes into (train, validation) episode numbers, both sorted.

    The choice equals that of the original Diffusion Policy code for the same arguments: at least one
    validation episode whenever ``val_ratio`` > 0, always at least one for training, and `max_train` is drawn
    from the training part after the split.

    Raises:
        DatasetError: There is no episode, or an argument is out of range.
    """
    if n < 1:
        raise DatasetError(f"found {n} episodes; expected at least one; convert or generate data first")
    if not 0 <= val_ratio < 1:
        raise DatasetError(f"val_ratio must lie in [0, 1), got {val_ratio}")
    if max_train is not None and max_train < 1:
        raise DatasetError(f"max_train must be >= 1 or absent, got {max_train}")
    is_val = np.zeros(n, dtype=bool)
    if val_ratio > 0:
        n_val = min(max(1, round(n * val_ratio)), n - 1)
        is_val[np.random.default_rng(seed).choice(n, size=n_val, replace=False)] = True
    train = np.flatnonzero(~is_val)
    if max_train is not None and len(train) > max_train:
        train = np.sort(train[np.random.default_rng(seed).choice(len(train), size=max_train, replace=False)])
    return train, np.flatnonzero(is_val)
