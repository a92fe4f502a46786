"""Short pieces of recordings, each from a known state on: what parameters are identified on.

Pushing is chaotic over whole episodes: a contact missed by a millimetre changes everything after it. So a recording is
cut into pieces of under a second, and each starts where a twin that was in step with the recording says it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_sim.twin.cell import Cell
from robot_sim.twin.cell_log import CellLog, play
from robot_sim.twin.twin import Twin

BLOCK_NS = 20_000_000  # commands and poses are compared on this grid [ns]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """One piece; times are counted from its start.

    Attributes:
        qpos: State of the twin's model at the start (nq,).
        qvel: (nv,).
        goals: Tool positions commanded in each 20 ms (K, 3) [m], the latency of commands not taken off.
        before: The same before the start, newest first (B, 3) [m].
        joints: Measured joint positions at the ends of the 20 ms (K, n) [rad].
        seen: Index of 20 ms (M,) of each pose of the object.
        poses: Measured position (x, y) and yaw of the object then (M, 3), relative to the pose at the start.
        travel: How far the object went [m].
    """

    qpos: np.ndarray
    qvel: np.ndarray
    goals: np.ndarray
    before: np.ndarray
    joints: np.ndarray
    seen: np.ndarray
    poses: np.ndarray
    travel: float


def yaw_of(quaternion: np.ndarray) -> np.ndarray:
    """Return the angle about z (...) [rad] of quaternions wxyz (..., 4)."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion), -1, 0)
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def cut(
    cell: Cell, logs: Sequence[CellLog], body: str, *, seconds: float = 0.8, most: int | None = None
) -> list[Segment]:
    """Return the pieces of recordings, those first in which an object moves most.

    Args:
        cell: What the twin believes so far.
        logs: Recordings with commands.
        body: The object.
        seconds: Length of a piece [s].
        most: How many are returned; None for all.
    """
    found: list[Segment] = []
    blocks = round(seconds * 1e9 / BLOCK_NS)
    for log in logs:
        twin, next_ns = Twin(cell), 1_000_000_000
        for report in play(twin, log):
            if report.time_ns > log.end_ns - blocks * BLOCK_NS:
                break
            if report.time_ns >= next_ns:
                found.append(_segment(twin, log, body, blocks))
                next_ns = report.time_ns + round(0.5 * seconds * 1e9)
    return sorted(found, key=lambda piece: -piece.travel)[:most]


def _segment(twin: Twin, log: CellLog, body: str, blocks: int) -> Segment:
    start_ns, world = twin.time_ns, twin.world
    commands = np.array(log.commands)
    ends = start_ns + BLOCK_NS * np.arange(1, blocks + 1)
    earlier = start_ns - BLOCK_NS * np.arange(0, 15)
    actions = [_mean_command(commands, times) for times in (ends, earlier)]
    goals, before = (world.task.tool_goal(action)[0] for action in actions)  # type: ignore[attr-defined]
    joints = np.array(log.joints)
    n = (joints.shape[1] - 2) // 2
    times = np.concatenate([[start_ns], ends])
    readings = np.stack([np.interp(times, joints[:, 1], column) for column in joints[:, 2:].T], axis=1)
    qpos, qvel = world.data.qpos.copy(), world.data.qvel.copy()
    qpos[world.qpos], qvel[world.qvel] = readings[0, :n], readings[0, n:]
    seen = np.array(log.objects[body])
    seen = seen[(seen[:, 1] > start_ns) & (seen[:, 1] <= ends[-1])]
    position, quaternion = world.pose(body)
    yaw = yaw_of(seen[:, 5:9]) - yaw_of(quaternion)
    poses = np.concatenate([seen[:, 2:4] - position[:2], _wrapped(yaw)[:, None]], axis=1)
    return Segment(
        qpos=qpos,
        qvel=qvel,
        goals=goals,
        before=before,
        joints=readings[1:, :n],
        seen=np.ceil((seen[:, 1] - start_ns) / BLOCK_NS).astype(int) - 1,
        poses=poses,
        travel=float(np.linalg.norm(poses[-3:, :2].mean(axis=0))) if len(poses) > 3 else 0.0,
    )


def _mean_command(commands: np.ndarray, ends_ns: np.ndarray) -> np.ndarray:
    """The mean of the action in force during the 20 ms before each time (K, A); the first one before that."""
    within = ends_ns[:, None] - BLOCK_NS + np.arange(0, BLOCK_NS, BLOCK_NS // 10)
    index = np.searchsorted(commands[:, 0], within, side="right") - 1
    return commands[index.clip(0), 1:].mean(axis=1)


def _wrapped(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
