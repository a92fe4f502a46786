"""Who advances a batch of states: MuJoCo's threads, or `mujoco_warp` on a GPU.

A stepper sees what is in `robot_sim.vector.layout`: rows of FULLPHYSICS states and rows of inputs. Everything else
about a batch (resets, snapshots, what follows from a state) is the same whoever steps it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robot_sim.engine import mujoco


@dataclass(frozen=True)
class Batch:
    """What a stepper works on.

    Attributes:
        models: One ``MjModel`` per environment (the same object N times where they do not differ).
        states: (N, nstate) FULLPHYSICS states; read, never written.
        inputs: (N, n) inputs that belong to `input_spec`; read, never written.
        input_spec: ``mjtState`` bits of the inputs.
    """

    models: Sequence[Any]
    states: np.ndarray
    inputs: np.ndarray
    input_spec: int


class Stepper(Protocol):
    """Advances rows of a `Batch`."""

    def step(self, rows: np.ndarray, n_steps: int) -> np.ndarray:
        """Return the states (n, nstate) of `rows` (n,) after `n_steps` >= 1 physics steps with their inputs held.

        Constraint forces start cold. A row that became unstable ends with a value that is not finite, or with a
        clock that shows a new start.
        """
        ...

    def touch(self, rows: np.ndarray | slice) -> None:
        """Hear that model parameters of rows may have been written."""
        ...

    def close(self) -> None:
        """Free threads and memory."""
        ...


class RolloutStepper:
    """MuJoCo's native thread pool.

    Args:
        batch: What is stepped.
        threads: Worker threads; None uses the cores this process may use, 0 steps on the calling thread.
    """

    def __init__(self, batch: Batch, threads: int | None) -> None:
        n_envs = len(batch.models)
        threads = _available_cores() if threads is None else threads
        n_threads = 0 if threads <= 1 or n_envs == 1 else min(threads, n_envs)
        self._batch = batch
        self._pool = mujoco.rollout.Rollout(nthread=n_threads)
        self._thread_data = [mujoco.MjData(batch.models[0]) for _ in range(max(1, n_threads))]

    def step(self, rows: np.ndarray, n_steps: int) -> np.ndarray:
        """See `Stepper`; MuJoCo answers instability by starting over, which shows in the clock."""
        batch = self._batch
        after = np.empty((len(rows), n_steps, batch.states.shape[1]))
        self._pool.rollout(
            [batch.models[i] for i in rows],
            self._thread_data,
            batch.states[rows],
            np.repeat(batch.inputs[rows, None], n_steps, axis=1),
            control_spec=batch.input_spec,
            nstep=n_steps,
            state=after,
            skip_checks=True,
        )
        return after[:, -1]

    def touch(self, rows: np.ndarray | slice) -> None:
        """Models are read anew in every step."""

    def close(self) -> None:
        """End the threads."""
        self._pool.close()


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
