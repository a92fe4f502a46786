"""Identification: which mass, friction, stiffness and latency make the cell's recordings likely.

Least squares over batched rollouts of short pieces (`robot_sim.twin.segments`): a first round of drawn candidates finds
the valley, Levenberg-Marquardt with finite differences walks it, several damping factors per step in one batch.
Residuals are divided by their noise and bounded, as a contact that is missed by a millimetre is no information. The
uncertainty is that of the data: one more step for resampled pieces (bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot_datasets.mapping import ConfigError
from robot_sim.twin.cell import Cell
from robot_sim.twin.cell_log import CellLog
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.segments import Segment, cut, yaw_of

NAMES: tuple[str, ...] = ("friction", "mass", "stiffness", "command_latency")
_ROBUST = 3.0  # residuals are bounded here, smoothly, in units of the noise
_STEPS = np.array([0.05, 0.05, 0.05, 0.01])  # of the finite differences: logarithms of factors, and s
_DAMPING = (0.0, 0.03, 0.3, 3.0)


@dataclass(frozen=True, kw_only=True)
class IdentificationConfig:
    """How the search goes.

    Attributes:
        factors: Smallest and largest factor on friction, mass and stiffness.
        latency: Largest latency of commands [s].
        population: Candidates of the first round.
        rounds: Steps after it, at most.
        pieces: How many pieces.
        seconds: Length of a piece [s].
        joint_noise: What joints may be off by [rad]; above the sensor's, as the model of the arm is not exact.
        bootstrap: Resamples for the uncertainty.
        seed: Of the search.
    """

    factors: tuple[float, ...] = (0.4, 3.0)
    latency: float = 0.15
    population: int = 16
    rounds: int = 7
    pieces: int = 40
    seconds: float = 0.8
    joint_noise: float = 0.0015
    bootstrap: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.population < 2 or self.rounds < 1 or self.pieces < 4 or self.bootstrap < 2:
            raise ConfigError(
                f"identification: population {self.population}, rounds {self.rounds}, pieces {self.pieces}, bootstrap "
                f"{self.bootstrap}; expected at least 2, 1, 4 and 2"
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
    pieces = [p for p in cut(cell, logs, body, seconds=config.seconds, most=config.pieces) if len(p.seen)]
    if len(pieces) < 4:
        raise ConfigError(
            f"identification: {len(pieces)} usable pieces, expected 4 or more; record more pushes"
        )
    search = _Search(cell, pieces, body, config)
    search.draw()
    while search.step():
        if progress is not None:
            progress(search.rounds, config.rounds, search.loss)
    found = _physical(search.best)
    spread = search.uncertainty()
    before = float(search.losses([np.zeros(len(NAMES))])[0])
    parameters: dict[str, float] = dict(zip(NAMES, found.tolist(), strict=True))
    uncertainty: dict[str, float] = dict(zip(NAMES, spread.tolist(), strict=True))
    return Identified(
        cell=replace(changed(cell, body, found), uncertainty={**cell.uncertainty, **uncertainty}),
        parameters=parameters,
        uncertainty=uncertainty,
        loss_before=before,
        loss=search.loss,
        pieces=len(pieces),
        rollouts=search.rollouts,
    )


class _Search:
    """The state of a search; candidates are logarithms of the factors, and the latency."""

    def __init__(
        self, cell: Cell, pieces: Sequence[Segment], body: str, config: IdentificationConfig
    ) -> None:
        self._cell, self._pieces, self._body, self._config = cell, pieces, body, config
        self.low, self.high = _bounds(config)
        self.best, self.loss = np.zeros(len(NAMES)), np.inf
        self.rounds, self.rollouts = 0, 0
        self._residual, self._slopes = np.empty(0), np.empty(0)

    def roll(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
        """Return residuals (C, S, R)."""
        cells = [changed(self._cell, self._body, _physical(c)) for c in candidates]
        self.rollouts += len(cells) * len(self._pieces)
        return residuals(cells, self._pieces, self._body, joint_noise=self._config.joint_noise)

    def losses(self, candidates: Sequence[np.ndarray]) -> np.ndarray:
        """Return the mean loss of each (C,)."""
        return np.square(self.roll(candidates)).sum(axis=2).mean(axis=1)

    def draw(self) -> None:
        """The first round: the cell file's own, and candidates over the whole range."""
        random = np.random.default_rng(self._config.seed)
        spread = random.uniform(size=(self._config.population - 1, len(NAMES)))
        candidates = [np.zeros(len(NAMES)), *(self.low + spread * (self.high - self.low))]
        self._choose(candidates)

    def step(self) -> bool:
        """Walk once; return whether it was worth it and there may be more."""
        if self.rounds >= self._config.rounds:
            return False
        self.rounds += 1
        self._differentiate()
        before = self.loss
        normal, gradient = self._normal(np.arange(len(self._pieces)))
        scale = np.diag(np.diag(normal)) + 1e-9 * np.eye(len(NAMES))
        ways = [
            -np.linalg.solve(normal + damping * scale + 1e-9 * np.eye(len(NAMES)), gradient)
            for damping in _DAMPING
        ]
        tries = [np.clip(self.best + way, self.low, self.high) for way in ways]
        tries += [np.clip(self.best + way, self.low, self.high) for way in self._along(normal)]
        self._choose(tries)
        return self.loss < 0.995 * before or self.rounds == 1

    def _along(self, normal: np.ndarray) -> list[np.ndarray]:
        """Steps along the valley: the direction in which the data say least, e.g. slower but sooner."""
        relative = normal * _STEPS[:, None] * _STEPS
        weakest = np.linalg.eigh(relative)[1][:, 0] * _STEPS
        longest = float(np.max(np.abs(weakest) / _STEPS))
        return [sign * size / longest * weakest for sign in (-1.0, 1.0) for size in (2.0, 5.0)]

    def uncertainty(self) -> np.ndarray:
        """Return a standard deviation for each of `NAMES` (4,), in physical units."""
        self._differentiate()
        random, count = np.random.default_rng(self._config.seed + 1), len(self._pieces)
        again = []
        for _ in range(self._config.bootstrap):
            normal, gradient = self._normal(random.integers(count, size=count))
            again.append(self.best - np.linalg.solve(normal + 1e-6 * np.eye(len(NAMES)), gradient))
        spread = np.array(again).std(axis=0)
        return np.concatenate([np.exp(self.best[:3]) * spread[:3], spread[3:]])

    def _choose(self, candidates: Sequence[np.ndarray]) -> None:
        found = self.roll(candidates)
        losses = np.square(found).sum(axis=2).mean(axis=1)
        index = int(np.argmin(losses))
        if losses[index] < self.loss:
            self.best, self.loss, self._residual = candidates[index], float(losses[index]), found[index]

    def _differentiate(self) -> None:
        """Forward differences of the residuals, (4, S, R); backwards at the upper bound."""
        signs = np.where(self.best + _STEPS > self.high, -1.0, 1.0)
        moved = self.roll(
            [self.best + signs[i] * _STEPS[i] * np.eye(len(NAMES))[i] for i in range(len(NAMES))]
        )
        self._slopes = (moved - self._residual) / (signs * _STEPS)[:, None, None]

    def _normal(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (4, 4) and gradient (4,) of the least squares over some pieces."""
        slopes = self._slopes[:, chosen].reshape(len(NAMES), -1)
        return slopes @ slopes.T / len(chosen), slopes @ self._residual[chosen].ravel() / len(chosen)


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
