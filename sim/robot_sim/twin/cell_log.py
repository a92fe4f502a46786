"""Recordings of a cell: what arrived when, what was commanded, and where the bodies really were if that is known.

A log is a zarr directory, written at once or not at all. Played back it gives a twin the same messages at the same
ticks, so the same log and cell file give the same twin, bit for bit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from robot_datasets.errors import UserError
from robot_sim.twin.observed import ObservedJoints, ObservedPose, ObservedState
from robot_sim.twin.twin import Twin, TwinReport

FORMAT = 1


class LogError(UserError):
    """A log is missing, damaged, or of another cell."""


@dataclass
class CellLog:
    """A recording in memory.

    Attributes:
        joints: Arrival and stamp [ns], positions, velocities: rows (2 + 2 n,).
        objects: Body -> rows (2 + 7 + 36,): arrival, stamp [ns], position, quaternion, covariance.
        commands: Time [ns] and action: rows (1 + A,).
        truth: Body -> rows (1 + 7,): time [ns], true pose; surrogates only.
        end_ns: When the recording ended [ns].
    """

    joints: list[np.ndarray] = field(default_factory=list)
    objects: dict[str, list[np.ndarray]] = field(default_factory=dict)
    commands: list[np.ndarray] = field(default_factory=list)
    truth: dict[str, list[np.ndarray]] = field(default_factory=dict)
    end_ns: int = 0

    def take(self, message: ObservedState, *, arrived_ns: int) -> None:
        """Record a message; images are not part of a log."""
        when = [float(arrived_ns), float(message.stamp_ns)]
        if message.joints is not None:
            self.joints.append(np.concatenate([when, message.joints.positions, message.joints.velocities]))
        for body, pose in message.objects.items():
            row = np.concatenate([when, pose.position, pose.quaternion, pose.covariance.ravel()])
            self.objects.setdefault(body, []).append(row)

    def command(self, action: np.ndarray, *, time_ns: int) -> None:
        """Record a command."""
        self.commands.append(np.concatenate([[float(time_ns)], action]))

    def true_pose(self, body: str, pose: tuple[np.ndarray, np.ndarray], *, time_ns: int) -> None:
        """Record where a body really is."""
        self.truth.setdefault(body, []).append(np.concatenate([[float(time_ns)], *pose]))

    def messages(self) -> list[tuple[int, ObservedState]]:
        """Return (arrival [ns], message) in order of arrival."""
        found: list[tuple[int, ObservedState]] = []
        for row in self.joints:
            n = (len(row) - 2) // 2
            joints = ObservedJoints(positions=row[2 : 2 + n], velocities=row[2 + n :])
            found.append((int(row[0]), ObservedState(stamp_ns=int(row[1]), joints=joints)))
        for body, rows in self.objects.items():
            for row in rows:
                pose = ObservedPose(
                    position=row[2:5], quaternion=row[5:9], covariance=row[9:45].reshape(6, 6)
                )
                found.append((int(row[0]), ObservedState(stamp_ns=int(row[1]), objects={body: pose})))
        return sorted(found, key=lambda entry: (entry[0], entry[1].stamp_ns))


def write_log(log: CellLog, path: str | Path, *, cell: str) -> None:
    """Write a log.

    Args:
        log: The recording.
        path: A directory that does not exist yet.
        cell: Name of the cell it is of.

    Raises:
        LogError: There is something at `path`.
    """
    target = Path(path)
    if target.exists():
        raise LogError(f"{target} exists; choose another name or remove it")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.open_group(str(partial), mode="w")
    group.attrs.update({"robot_policies_cell_log": FORMAT, "cell": cell, "end_ns": log.end_ns})
    tables = {"joints": log.joints, "commands": log.commands}
    tables |= {f"objects/{body}": rows for body, rows in log.objects.items()}
    tables |= {f"truth/{body}": rows for body, rows in log.truth.items()}
    for name, rows in tables.items():
        values = np.array(rows) if rows else np.empty((0, 1))
        group.create_array(name, data=values)
    os.replace(partial, target)


def read_log(path: str | Path, *, cell: str) -> CellLog:
    """Read a log of a cell.

    Raises:
        LogError: No log, damaged, or of another cell.
    """
    try:
        group: Any = zarr.open_group(str(path), mode="r")
        kind, of, end_ns = (group.attrs.get(k) for k in ("robot_policies_cell_log", "cell", "end_ns"))
        if kind != FORMAT or of != cell:
            raise LogError(
                f"{path}: log format {kind} of cell '{of}', expected format {FORMAT} of '{cell}'; give the "
                "log's own cell file"
            )
        log = CellLog(joints=_rows(group, "joints"), commands=_rows(group, "commands"), end_ns=int(end_ns))
        for kind, into in (("objects", log.objects), ("truth", log.truth)):
            if kind in group:
                for body in sorted(group[kind].keys()):
                    into[body] = _rows(group, f"{kind}/{body}")
        return log
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise LogError(f"{path}: no readable log of a cell ({' '.join(str(error).split())})") from error


def _rows(group: Any, name: str) -> list[np.ndarray]:
    return list(np.asarray(group[name][:]))


def play(twin: Twin, log: CellLog) -> Iterator[TwinReport]:
    """Give a twin what a log holds, tick by tick, and yield its reports."""
    messages = log.messages()
    place = 0
    while twin.time_ns + twin.cell.tick_ns <= log.end_ns:
        arrived = []
        while place < len(messages) and messages[place][0] <= twin.time_ns:
            arrived.append(messages[place][1])
            place += 1
        yield twin.tick(arrived)
