"""Finding RoboMIND trajectories: paths anchored on the folder ``success_episodes``, and the instruction table."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from robot_datasets.errors import DatasetError

TRAJECTORY = "trajectory.hdf5"
_ANCHOR = "success_episodes"
_SPLITS = ("train", "val")
_PROBE_DEPTH = 9
_PROBE_FOLDERS = 2000


@dataclass(frozen=True)
class Trajectory:
    """One file and what its path says.

    Attributes:
        path: The file.
        source_id: ``[benchmark/]embodiment/task/success_episodes[/split]/episode``.
        folder: Embodiment folder, e.g. ``h5_franka_1rgb``.
        task: Task folder.
        split: ``"train"``, ``"val"`` or empty.
    """

    path: Path
    source_id: str
    folder: str
    task: str
    split: str


def parse_trajectory(path: Path) -> Trajectory | None:
    """Read a path by walking back and forth from ``success_episodes``; None if it is not of that form.

    The depth above and the format of episode names differ between releases, so neither is relied upon.
    """
    parts = Path(os.path.abspath(path)).parts
    if parts[-1] != TRAJECTORY or _ANCHOR not in parts:
        return None
    anchor = len(parts) - 1 - parts[::-1].index(_ANCHOR)
    inside = [part for part in parts[anchor + 1 : -1] if part != "data"]
    if anchor < 3 or not inside:
        return None
    split = inside[0] if inside[0] in _SPLITS and len(inside) > 1 else ""
    benchmark = [parts[anchor - 3]] if parts[anchor - 3].startswith("benchmark") else []
    folder, task = parts[anchor - 2], parts[anchor - 1]
    source_id = PurePosixPath(*benchmark, folder, task, _ANCHOR, *inside).as_posix()
    return Trajectory(path, source_id, folder, task, split)


def find_trajectories(path: Path) -> list[Trajectory]:
    """Return all trajectories at or below `path`, sorted by source id."""
    files = [path] if path.is_file() else path.rglob(TRAJECTORY)
    found = [trajectory for trajectory in map(parse_trajectory, files) if trajectory is not None]
    return sorted(found, key=lambda t: t.source_id)


def has_trajectory(path: Path) -> Path | None:
    """Return one trajectory at or below `path`, looking at a bounded number of folders; None if there is none."""
    if path.is_file():
        return path if parse_trajectory(path) else None
    for count, candidate in enumerate(_walk(path, _PROBE_DEPTH)):
        if count >= _PROBE_FOLDERS:
            return None
        file = candidate / TRAJECTORY
        if file.is_file() and parse_trajectory(file):
            return file
    return None


def tree_checksum(trajectories: Sequence[Trajectory]) -> str:
    """Hash names and sizes; reading terabytes only to notice a change would cost more than converting again."""
    digest = hashlib.blake2b(digest_size=16)
    for trajectory in trajectories:
        digest.update(f"{trajectory.source_id}\0{trajectory.path.stat().st_size}\n".encode())
    return digest.hexdigest()


def read_instructions(path: Path) -> dict[str, str]:
    """Read RoboMIND's instruction table: columns ``task`` and ``instruction``; the first of repeated tasks counts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"cannot read the instruction table {path}: {error}") from error
    if not rows or not {"task", "instruction"} <= set(rows[0]):
        found = ", ".join(filter(None, rows[0])) if rows else "no rows"
        raise DatasetError(
            f"{path} has columns {found}; expected task and instruction (RoboMIND_v1_2_instr.csv)"
        )
    table: dict[str, str] = {}
    for row in rows:
        table.setdefault(row["task"], row["instruction"] or "")
    return table


def _walk(path: Path, depth: int) -> Iterator[Path]:
    yield path
    if depth == 0:
        return
    try:
        folders = sorted(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=True))
    except OSError:  # a folder that cannot be listed holds nothing for us
        return
    for folder in folders:
        yield from _walk(Path(folder), depth - 1)
