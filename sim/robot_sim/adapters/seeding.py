"""Seeding of simulators that draw from NumPy's global generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def seeded_numpy(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator inside the block and put its state back afterwards."""
    before = np.random.get_state()  # noqa: NPY002  (the generator robosuite draws from)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
