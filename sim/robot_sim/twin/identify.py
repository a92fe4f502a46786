"""Identification: which mass, friction, stiffness and latency make the cell's recordings likely.

Cross-entropy search (Rubinstein 1999) over batched rollouts of short pieces (`robot_sim.twin.segments`): candidates are
drawn, every one is rolled out over every piece, the best few say where to draw next. The uncertainty is that of the
data: the minimum of a quadratic through the last candidates, for resampled pieces (bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_sim.twin.cell import Cell
from robot_sim.twin.cell_log import CellLog
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.segments import Segment, cut, yaw_of

NAMES: tuple[str, ...] = ("friction", "mass", "stiffness", "command_latency")
_ROBUST = (
    9.0  # squared residuals are bounded here, in squares of the noise: a missed contact is no information
)


@dataclass(frozen=True, kw_only=True)
class IdentificationConfig:
    """How the search goes.

    Attributes:
        factors: Smallest and largest factor on friction, mass and stiffness.
        latency: Largest latency of commands [s].
        population: Candidates per round.
        elite: The best of them, that the next round is drawn around.
        rounds: Rounds.
        seconds: Length of a piece [s].
        pieces: How many pieces.
        joint_noise: What joints may be off by [rad]; above the sensor's, as the model of the arm is not exact.
        bootstrap: Resamples for the uncertainty.
        seed: Of the search.
    """

    factors: tuple[float, ...] = (0.4, 3.0)
    latency: float = 0.15
    population: int = 20
    elite: int = 5
    rounds: int = 7
    seconds: float = 0.8
    pieces: int = 40
    joint_noise: float = 0.0015
    bootstrap: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 < self.elite < self.population or self.rounds < 3 or self.pieces < 4:
            raise ConfigError(
                f"identification: population {self.population}, elite {self.elite}, rounds {self.rounds}, pieces "
                f"{self.pieces}; expected 1 < elite < population, 3 rounds and 4 pieces or more"
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


@dataclass
class _Search:
    tried: list[np.ndarray] = field(default_factory=list)
    losses: list[np.ndarray] = field(default_factory=list)


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
    """Roll every cell out over every piece; return the mean bounded squared residual (C, S)."""
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
    loss = np.zeros(len(copies))
    for row in range(len(copies)):
        piece = pieces[row % count]
        arm = (np.stack([step[row] for step in joints]) - piece.joints) / joint_noise
        seen = (np.stack([places[index][row] for index in piece.seen]) - piece.poses) / scale
        loss[row] = np.minimum(arm**2, _ROBUST).mean() + np.minimum(seen**2, _ROBUST).mean()
    return loss.reshape(len(cells), count)


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
    pieces = [p for p in cut(cell, logs, body, seconds=config.seconds, most=config.pieces) if len(p.seen)]
    if len(pieces) < 4:
        raise ConfigError(
            f"identification: {len(pieces)} usable pieces, expected 4 or more; record more pushes"
        )
    search = _searched(cell, pieces, body, config, progress)
    tried, losses = np.concatenate(search.tried), np.concatenate(search.losses)
    best = _minimum(tried, losses.mean(axis=1), config)
    random = np.random.default_rng(config.seed + 1)
    again = [
        _minimum(tried, losses[:, random.integers(len(pieces), size=len(pieces))].mean(axis=1), config)
        for _ in range(config.bootstrap)
    ]
    spread = _physical(np.array(again)).std(axis=0)
    found = _physical(best)
    pair = [cell, changed(cell, body, found)]
    before, after = residuals(pair, pieces, body, joint_noise=config.joint_noise).mean(axis=1) / 2
    parameters: dict[str, float] = dict(zip(NAMES, found.tolist(), strict=True))
    uncertainty: dict[str, float] = dict(zip(NAMES, spread.tolist(), strict=True))
    return Identified(
        cell=replace(pair[1], uncertainty={**cell.uncertainty, **uncertainty}),
        parameters=parameters,
        uncertainty=uncertainty,
        loss_before=float(before),
        loss=float(after),
        pieces=len(pieces),
        rollouts=losses.size,
    )


def _searched(
    cell: Cell,
    pieces: Sequence[Segment],
    body: str,
    config: IdentificationConfig,
    progress: Callable[[int, int, float], None] | None,
) -> _Search:
    """Draw, roll out, keep the best, draw again; in logarithms of the factors."""
    random, search = np.random.default_rng(config.seed), _Search()
    low, high = _bounds(config)
    mean, spread = 0.5 * (low + high), 0.35 * (high - low)
    mean[:3] = 0.0  # the cell file's own
    for index in range(config.rounds):
        draws = mean + spread * random.standard_normal((config.population, len(NAMES)))
        draws = np.clip(draws, low, high)
        cells = [changed(cell, body, theta) for theta in _physical(draws)]
        losses = residuals(cells, pieces, body, joint_noise=config.joint_noise)
        search.tried.append(draws)
        search.losses.append(losses)
        elite = draws[np.argsort(losses.mean(axis=1))[: config.elite]]
        mean = elite.mean(axis=0)
        spread = 0.3 * spread + 0.7 * np.maximum(elite.std(axis=0), 0.02 * (high - low))
        if progress is not None:
            progress(index + 1, config.rounds, float(losses.mean(axis=1).min() / 2))
    return search


def _bounds(config: IdentificationConfig) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.log(config.factors)
    return np.array([low, low, low, 0.0]), np.array([high, high, high, config.latency])


def _physical(draws: np.ndarray) -> np.ndarray:
    """Factors from their logarithms, (..., 4); the latency as it is."""
    return np.concatenate([np.exp(draws[..., :3]), draws[..., 3:]], axis=-1)


def _minimum(tried: np.ndarray, loss: np.ndarray, config: IdentificationConfig) -> np.ndarray:
    """The minimum of a quadratic through the best half of the candidates, within their range (4,)."""
    best = np.argsort(loss)[: max(30, len(loss) // 2)]
    points, values = tried[best], loss[best]
    centre, scale = points.mean(axis=0), points.std(axis=0) + 1e-6
    x = (points - centre) / scale
    pairs = [(i, j) for i in range(x.shape[1]) for j in range(i, x.shape[1])]
    basis = np.column_stack([np.ones(len(x)), x, *(x[:, i] * x[:, j] for i, j in pairs)])
    ridge = 1e-3 * np.eye(basis.shape[1])
    weights = np.linalg.solve(basis.T @ basis + ridge, basis.T @ values)
    n = x.shape[1]
    curvature = np.zeros((n, n))
    for (i, j), weight in zip(pairs, weights[1 + n :], strict=True):
        curvature[i, j] += weight
        curvature[j, i] += weight
    values_, vectors = np.linalg.eigh(curvature)
    bowl = vectors @ np.diag(np.maximum(values_, 0.05 * abs(values_).max() + 1e-9)) @ vectors.T
    step = -np.linalg.solve(bowl, weights[1 : 1 + n])
    low, high = _bounds(config)
    return np.clip(centre + scale * np.clip(step, x.min(axis=0), x.max(axis=0)), low, high)


def _closed(running: ParallelCell) -> np.ndarray:
    """Actuator inputs (nu,) with the gripper closed."""
    arm = running.task.arm  # type: ignore[attr-defined]
    ctrl = np.zeros(running.physics.model.nu)
    ctrl[running.task.names.actuators(*arm.mount.gripper_actuators)] = arm.mount.gripper_model.closed
    return ctrl
