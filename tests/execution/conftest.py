"""Drivers of executors, shared by their tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from robot_policies.execution import ChunkExecutor


def numbered_chunk(step: int, n_obs_steps: int, horizon: int) -> np.ndarray:
    """A chunk whose entries say which step they are for and which step they were computed for."""
    target = np.arange(horizon) - (n_obs_steps - 1) + step
    return np.stack([target, np.full(horizon, step)], axis=1).astype(np.float64)


def drive_executor(
    executor: ChunkExecutor, n_obs_steps: int, horizon: int, delays: Sequence[int], n_steps: int
) -> tuple[np.ndarray, list[tuple[int, Any]]]:
    """Run `n_steps` steps; chunk k is ``delays[k]`` late, the first is waited for.

    Returns:
        The actions (n_steps, 2), and for each request its step and what the chunk had to agree with.
    """
    asked, taken, requests = None, [], []
    for step in range(n_steps):
        while True:
            delay = delays[(len(requests) - 1) % len(delays)]
            if asked is not None and (asked == 0 or step - asked >= delay):
                executor.push(numbered_chunk(asked, n_obs_steps, horizon), computed_for_step=asked)
                asked = None
            if asked is not None or not executor.needs_chunk():
                break
            asked = step
            requests.append((step, executor.continuation()))
        taken.append(executor.next_action())
    return np.array(taken), requests


@pytest.fixture(scope="session")
def chunk_for() -> Callable[..., np.ndarray]:
    """`numbered_chunk`."""
    return numbered_chunk


@pytest.fixture(scope="session")
def drive() -> Callable[..., Any]:
    """`drive_executor`."""
    return drive_executor
