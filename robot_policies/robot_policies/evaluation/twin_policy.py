"""A trained policy for the task of a twin's cell, checked against it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robot_policies.checkpoint import load_policy
from robot_policies.evaluation.futures import ChunkedPolicy
from robot_policies.execution.executor import build_executor
from robot_sim.twin.cell import Cell
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.scene import cell_task


class OneOf:
    """A batch policy for one environment, step by step.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: ChunkedPolicy) -> None:
        self._policy = policy

    def reset(self) -> None:
        """Begin an episode."""
        self._policy.reset(1)

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the action (A,) for an observation."""
        return self._policy.act({name: value[None] for name, value in observation.items()})[0]


def load_twin_policy(path: str, cell: Cell) -> ChunkedPolicy:
    """Load a checkpoint for a cell's task.

    Args:
        path: Checkpoint or run directory.
        cell: The cell.

    Raises:
        UserError: No checkpoint, or one for another task, or one that looks at pictures.
    """
    loaded = load_policy(path)
    spec = cell_task(cell).spec
    loaded.spec.require(spec.features, fps=spec.fps, who=f"the twin's task '{spec.name}'")
    executor = build_executor(None, loaded.spec)
    copies = ParallelCell([cell], threads=0)
    goal = {name: value[0] for name, value in copies.task.goal(copies).items()}
    return ChunkedPolicy(loaded.policy, executor, goal=goal, instruction=spec.instruction)
