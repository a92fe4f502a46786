"""Identification: which mass, friction, stiffness and latency make the cell's recordings likely.

Least squares over batched rollouts of short pieces (`robot_sim.twin.segments`), by `robot_sim.twin.search`. First the
arm alone, on pieces in which no object moves: stiffness and latency, which would else be mistaken for a block that
resists. Then all four on the pieces in which the object moves most, and again on pieces that start where a twin with
what was found was. Residuals are divided by their noise and bounded,
as a contact that is missed by a millimetre is no information. Then the direction in which the data say least is walked
along (`robot_sim.twin.valley`). The uncertainty is that of the data, from resampled pieces (bootstrap): the spread of
their choices along the valley, and of one more step across it; and what the model cannot resolve
(`IdentificationConfig.unresolved`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_sim.twin.cell import Cell
from robot_sim.twin.cell_log import CellLog
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.search import Search
from robot_sim.twin.segments import Segment, cut, yaw_of
from robot_sim.twin.valley import Roll

NAMES: tuple[str, ...] = ("friction", "mass", "stiffness", "command_latency")
_ROBUST = 3.0  # residuals are bounded here, smoothly, in units of the noise
_STEPS = np.array([0.05, 0.05, 0.05, 0.01])  # of the finite differences: logarithms of factors, and s
_OBJECT, _ARM = (0, 1), (2, 3)  # which of `NAMES`
_FEWEST = 4  # pieces


@dataclass(frozen=True, kw_only=True)
class IdentificationConfig:
    """How the search goes.

    Attributes:
        factors: Smallest and largest factor on friction, mass and stiffness.
        latency: Largest latency of commands [s].
        population: Candidates of the first round.
        rounds: Steps after it, at most.
        pieces: How many pieces in which the object moves.
        still_pieces: How many pieces in which it does not.
        seconds: Length of a piece [s].
        joint_noise: What joints may be off by [rad]; above the sensor's, as the model of the arm is not exact.
        bootstrap: Resamples for the uncertainty.
        valley: Points along the direction that the data say least of.
        reach: How far they go to each side, in logarithms of factors.
        unresolved: Standard deviation that is added to each of `NAMES` because the model is not the cell: logarithms of
            factors, and s. Commands act on a grid of 20 ms, and latencies between are interpolated.
        seed: Of the search.
    """

    factors: tuple[float, ...] = (0.4, 3.0)
    latency: float = 0.15
    population: int = 16
    rounds: int = 10
    pieces: int = 40
    still_pieces: int = 10
    seconds: float = 0.8
    joint_noise: float = 0.0015
    bootstrap: int = 200
    valley: int = 13
    reach: float = 0.9
    unresolved: tuple[float, ...] = (0.05, 0.05, 0.01, 0.0015)
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"population": 2, "rounds": 1, "pieces": _FEWEST, "bootstrap": 2, "valley": 6}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"identification: {name} {getattr(self, name)}; expected at least {bound}")
        if self.reach <= 0 or len(self.unresolved) != len(NAMES) or min(self.unresolved) < 0:
            raise ConfigError(
                f"identification: reach {self.reach}, unresolved {self.unresolved}; expected more than 0, and a "
                f"standard deviation for each of {', '.join(NAMES)}"
            )


@dataclass(frozen=True, kw_only=True)
class Identified:
    """What was found.

    Attributes:
        cell: The cell with the parameters found.
        parameters: Name -> value, of `NAMES`: factors on what the cell file said, and seconds.
        uncertainty: Name -> standard deviation.
        loss_before: Mean squared residual over squared noise with the cell file as it was.
        loss: The same with the parameters found; 1 would be noise alone.
        pieces: How many pieces there were.
        rollouts: How many rollouts.
    """

    cell: Cell
    parameters: Mapping[str, float]
    uncertainty: Mapping[str, float]
    loss_before: float
    loss: float
    pieces: int
    rollouts: int


def changed(cell: Cell, body: str, theta: np.ndarray) -> Cell:
    """Return the cell with factors on friction, mass, stiffness, and with the latency of commands (4,)."""
    known = cell.objects[body]
    known = replace(known, friction=known.friction * float(theta[0]), mass=known.mass * float(theta[1]))
    return replace(
        cell,
        objects={**cell.objects, body: known},
        robot=replace(cell.robot, stiffness=cell.robot.stiffness * float(theta[2])),
        latency=replace(cell.latency, command=float(theta[3])),
    )


def residuals(
    cells: Sequence[Cell], pieces: Sequence[Segment], body: str, *, joint_noise: float
) -> np.ndarray:
    """Roll every cell out over every piece.

    Returns:
        (C, S, R) bounded residuals over noise, scaled so that the sum of their squares over R is the piece's loss:
        1 would be noise alone, joints and poses counting half each.
    """
    count = len(pieces)
    copies = [cell for cell in cells for _ in pieces]
    running = ParallelCell(copies, threads=1)
    running.put(
        np.tile(np.stack([piece.qpos for piece in pieces]), (len(cells), 1)),
        np.tile(np.stack([piece.qvel for piece in pieces]), (len(cells), 1)),
        ctrl=_closed(running),
    )
    goals, before = (
        np.tile(np.stack(part), (len(cells), 1, 1))
        for part in ([piece.goals for piece in pieces], [piece.before for piece in pieces])
    )
    running.given_before(before.swapaxes(0, 1))
    rotation = running.task.tool_goal(np.zeros(2))[1]  # type: ignore[attr-defined]
    joints, places = [], []
    address = running.objects[body]
    start = running.physics.qpos[:, address].copy()
    for block in range(goals.shape[1]):
        running.pull(goals[:, block], rotation)
        joints.append(running.joints)
        now = running.physics.qpos[:, address]
        yaw = yaw_of(now[:, 3:]) - yaw_of(start[:, 3:])
        places.append(np.column_stack([now[:, :2] - start[:, :2], (yaw + np.pi) % (2 * np.pi) - np.pi]))
    running.close()
    noise = cells[0].noise
    scale = np.array([noise.position, noise.position, noise.angle])
    longest = max(3 * len(piece.seen) for piece in pieces)
    found = np.zeros((len(copies), joints[0].shape[1] * len(joints) + longest))
    for row in range(len(copies)):
        piece = pieces[row % count]
        arm = ((np.stack([step[row] for step in joints]) - piece.joints) / joint_noise).ravel()
        seen = ((np.stack([places[index][row] for index in piece.seen]) - piece.poses) / scale).ravel()
        parts = [part / np.sqrt(1 + (part / _ROBUST) ** 2) / np.sqrt(2 * len(part)) for part in (arm, seen)]
        found[row, : len(arm) + len(seen)] = np.concatenate(parts)
    return found.reshape(len(cells), count, -1)


def identify(
    cell: Cell,
    logs: Sequence[CellLog],
    body: str,
    config: IdentificationConfig | None = None,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> Identified:
    """Find the parameters of a cell from recordings with commands.

    Args:
        cell: The cell as it is believed to be.
        logs: Recordings.
        body: The object whose friction and mass are found.
        config: How.
        progress: Called after each round with the round, their number and the best loss.

    Raises:
        ConfigError: No recording, or too few pieces in which the object moves.
    """
    config = config or IdentificationConfig()
    rolls = _Rolls(cell, body, config.joint_noise)
    tell = progress or (lambda *_: None)
    pieces = _pieces(cell, logs, body, config)
    start, drawn = np.zeros(len(NAMES)), _OBJECT + _ARM
    still = _still(pieces, limit=2 * cell.noise.position)[: config.still_pieces]
    if len(still) >= _FEWEST:
        arm = _search(rolls.over(still), start, config, free=_ARM)
        arm.draw(config.population, _ARM, config.seed)
        start, drawn = [arm.best for _ in arm.walk(config.rounds)][-1], _OBJECT
    rough = _search(rolls.over(pieces[: config.pieces]), start, config, free=_OBJECT + _ARM)
    before = rough.losses([np.zeros(len(NAMES))])[0]
    rough.draw(config.population, drawn, config.seed)
    for loss in rough.walk(config.rounds):
        tell(rough.rounds, 2 * config.rounds, loss)
    # Once more on pieces that start where the twin says with what was found: it knows better where the block was.
    moved = _pieces(changed(cell, body, _physical(rough.best)), logs, body, config)[: config.pieces]
    search = _search(rolls.over(moved), rough.best, config, free=_OBJECT + _ARM)
    for loss in search.walk(config.rounds):
        tell(config.rounds + search.rounds, 2 * config.rounds, loss)
    spread = search.along_valley(
        reach=config.reach, points=config.valley, resamples=config.bootstrap, seed=config.seed + 2
    )
    spread = np.hypot(spread, config.unresolved)
    spread[:3] *= np.exp(search.best[:3])
    found = _physical(search.best)
    parameters: dict[str, float] = dict(zip(NAMES, found.tolist(), strict=True))
    uncertainty: dict[str, float] = dict(zip(NAMES, spread.tolist(), strict=True))
    return Identified(
        cell=replace(changed(cell, body, found), uncertainty={**cell.uncertainty, **uncertainty}),
        parameters=parameters,
        uncertainty=uncertainty,
        loss_before=before,
        loss=search.loss,
        pieces=len(moved),
        rollouts=rolls.count,
    )


class _Rolls:
    """Rolls candidates out: logarithms of the factors, and the latency. Counts the rollouts."""

    def __init__(self, cell: Cell, body: str, joint_noise: float) -> None:
        self._cell, self._body, self._joint_noise = cell, body, joint_noise
        self.count = 0

    def over(self, pieces: Sequence[Segment]) -> Roll:
        """Return the function of candidates that gives their residuals (C, S, R) over some pieces."""

        def roll(candidates: list[np.ndarray]) -> np.ndarray:
            self.count += len(candidates) * len(pieces)
            cells = [changed(self._cell, self._body, _physical(candidate)) for candidate in candidates]
            return residuals(cells, pieces, self._body, joint_noise=self._joint_noise)

        return roll


def _search(roll: Roll, start: np.ndarray, config: IdentificationConfig, *, free: tuple[int, ...]) -> Search:
    return Search(roll, start, bounds=_bounds(config), steps=_STEPS, free=free)


def _pieces(cell: Cell, logs: Sequence[CellLog], body: str, config: IdentificationConfig) -> list[Segment]:
    pieces = [piece for piece in cut(cell, logs, body, seconds=config.seconds) if len(piece.seen)]
    if len(pieces) < _FEWEST:
        raise ConfigError(
            f"identification: {len(pieces)} usable pieces, expected {_FEWEST} or more; record more pushes"
        )
    return pieces


def _still(pieces: Sequence[Segment], *, limit: float) -> list[Segment]:
    """The pieces in which the object stayed where it was, those first in which the arm moved most."""
    unmoved = [piece for piece in pieces[len(pieces) // 2 :] if piece.travel < limit]
    return sorted(unmoved, key=lambda piece: -float(np.ptp(piece.joints, axis=0).max()))


def _bounds(config: IdentificationConfig) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.log(config.factors)
    return np.array([low, low, low, 0.0]), np.array([high, high, high, config.latency])


def _physical(draws: np.ndarray) -> np.ndarray:
    """Factors from their logarithms, (..., 4); the latency as it is."""
    return np.concatenate([np.exp(draws[..., :3]), draws[..., 3:]], axis=-1)


def _closed(running: ParallelCell) -> np.ndarray:
    """Actuator inputs (nu,) with the gripper closed."""
    arm = running.task.arm  # type: ignore[attr-defined]
    ctrl = np.zeros(running.physics.model.nu)
    ctrl[running.task.names.actuators(*arm.mount.gripper_actuators)] = arm.mount.gripper_model.closed
    return ctrl
