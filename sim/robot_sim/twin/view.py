"""A twin as its task sees it: observations, success, and copies of it as parallel futures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_sim.task import Observation
from robot_sim.twin.cell import Cell
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.scene import CellScene
from robot_sim.twin.twin import Twin


class TwinView:
    """Reads a twin with the task's own functions.

    Args:
        twin: The twin.

    Attributes:
        cell: Its cell.
        task: The cell's task.
    """

    def __init__(self, twin: Twin) -> None:
        self._twin, self.cell = twin, twin.cell
        self._copy = ParallelCell([twin.cell], threads=0)
        self.task = self._copy.task

    def dress(self, model: Any, data: Any) -> None:
        """Put the twin as it is now into a copy of the task's model with visuals, and its data, to be drawn."""
        self._show(self._twin.world)
        self._copy.dress(model, data, 0)

    def observe(self) -> Observation:
        """Return the low-dimensional features of the twin as it is now, without a batch axis."""
        self._show(self._twin.world)
        return {name: value[0] for name, value in self._copy.observe().items()}

    def succeeds(self, scene: CellScene) -> bool:
        """Return whether a scene of this cell, the twin's or a surrogate's, is where the task wants it."""
        self._show(scene)
        return bool(self._copy.task.success(self._copy)[0])

    def _show(self, scene: CellScene) -> None:
        self._copy.put(scene.data.qpos.copy(), scene.data.qvel.copy())


def fork(
    twin: Twin, n: int, *, cells: Sequence[Cell] | None = None, threads: int | None = None
) -> ParallelCell:
    """Return N copies of a twin as it is now, to be run ahead without corrections.

    Args:
        twin: The twin; it is left alone.
        n: How many.
        cells: Parameters of each copy, e.g. drawn from a calibration's uncertainty; None takes the twin's.
        threads: Threads of the physics.
    """
    copies = ParallelCell(list(cells) if cells is not None else [twin.cell] * n, threads=threads)
    data = twin.world.data
    copies.put(data.qpos.copy(), data.qvel.copy(), ctrl=np.tile(data.ctrl, (copies.n_envs, 1)))
    return copies
