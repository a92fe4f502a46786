"""Seeding of simulators that draw from global generators: NumPy's, and Python's for which object there is."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed both global generators inside the block and put their states back afterwards."""
    before, python_before = np.random.get_state(), random.getstate()  # noqa: NPY002  (what robosuite draws from)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        random.setstate(python_before)
