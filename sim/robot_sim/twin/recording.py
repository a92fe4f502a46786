"""Recordings of a surrogate under a demonstrator: what synchronisation and identification are judged on."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_sim.experts.push_t import PushTExpert, Situation
from robot_sim.tasks.push_t_geometry import CENTRE, turned
from robot_sim.tasks.tabletop_push_t import HIGH, LOW, RADIUS, TARGET
from robot_sim.twin.cell import Cell
from robot_sim.twin.cell_log import CellLog
from robot_sim.twin.surrogate import SurrogateCell, SurrogateConfig


def planar_pose(position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Return origin (2,) and angle of the PushT block (3,) from the pose of its body frame."""
    w, x, y, z = quaternion
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.array([*(position[:2] - turned(CENTRE[None], np.array([yaw]))[0, 0]), yaw])


class SurrogateView:
    """What a demonstrator at the surrogate sees: a person's eyes, not the sensors."""

    pusher_radius = RADIUS
    low, high = LOW, HIGH

    def __init__(self, surrogate: SurrogateCell) -> None:
        self._surrogate = surrogate

    def situation(self, env: Any) -> Situation:
        """Return where everything is."""
        del env
        block = planar_pose(*self._surrogate.truth("block"))
        return Situation(pusher=self._surrogate.scene.tool[:2], block=block, target=TARGET)


def record_pushes(
    cell: Cell,
    config: SurrogateConfig,
    *,
    seed: int,
    seconds: float,
    hand: tuple[float, float, float, float] | None = None,
    hidden: tuple[float, float] | None = None,
    noise: float = 0.002,
) -> CellLog:
    """Let the scripted demonstrator push the surrogate's block and record what the cell says.

    Args:
        cell: The cell of `tabletop_push_t`.
        config: The surrogate's own.
        seed: Start, noise and demonstrator.
        seconds: How long [s].
        hand: Somebody moves the block: time [s], x, y [m], yaw [rad].
        hidden: Poses are hidden: from when [s], for how long [s].
        noise: Of the demonstrator [m].
    """
    surrogate = SurrogateCell(cell, config)
    surrogate.start(seed)
    expert = PushTExpert(SurrogateView(surrogate), noise=noise)
    expert.reset(surrogate, seed)  # type: ignore[arg-type]  # the view knows the surrogate
    log, period_ns = CellLog(), round(1e9 / cell.rates.policy)
    for step in range(round(seconds * cell.rates.policy)):
        action = expert.perturb(expert.act({}))
        surrogate.command(action)
        log.command(action, time_ns=surrogate.time_ns)
        now = step / cell.rates.policy
        if hand is not None and abs(now - hand[0]) < 0.5 / cell.rates.policy:
            surrogate.move_by_hand("block", np.array(hand[1:3]), hand[3])
        if hidden is not None and abs(now - hidden[0]) < 0.5 / cell.rates.policy:
            surrogate.hide(hidden[1])
        end_ns = (step + 1) * period_ns
        while surrogate.time_ns < end_ns:
            for message in surrogate.advance(surrogate.time_ns + 4_000_000):
                log.take(message, arrived_ns=surrogate.time_ns)
            log.true_pose("block", surrogate.truth("block"), time_ns=surrogate.time_ns)
    log.end_ns = surrogate.time_ns
    return log
