"""Finding RoboMIND trajectories: paths anchored on the folder ``success_episodes``, and which release a file is of.

::

    1.x  [benchmark1_N_release/]h5_<embodiment>/<task>/success_episodes[/train|val]/<episode>/data/trajectory.hdf5
    2.0  [data/]<embodiment>/<task>/success_episodes/<stamp>/data/trajectory.hdf5    (simulated: <any name>.hdf5)
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.importers.hdf5_reading import DAMAGE, open_hdf5
from robot_datasets.isolation import call_isolated

if TYPE_CHECKING:
    import h5py

FORMATS = {1: "robomind", 2: "robomind2"}
"""Release -> name of its importer."""

_TRAJECTORY = "trajectory.hdf5"
_ANCHOR = "success_episodes"
_SPLITS = ("train", "val")
_PROBE_DEPTH = 9
_PROBE_FOLDERS = 2000
_PROBE_FILES = 5


@dataclass(frozen=True)
class Trajectory:
    """One file and what its path says.

    Attributes:
        path: The file.
        source_id: ``[benchmark/]embodiment/task/success_episodes[/split]/episode``.
        folder: Embodiment folder, e.g. ``h5_franka_1rgb``.
        task: Task folder.
        split: ``"train"``, ``"val"`` or empty.
        episode: Name of the episode.
    """

    path: Path
    source_id: str
    folder: str
    task: str
    split: str
    episode: str


def parse_trajectory(path: Path) -> Trajectory | None:
    """Read a path by walking back and forth from ``success_episodes``; None if it is not of that form.

    The depth above and the format of episode names differ between releases, so neither is relied upon.
    """
    parts = Path(os.path.abspath(path)).parts
    if path.suffix != ".hdf5" or _ANCHOR not in parts:
        return None
    anchor = len(parts) - 1 - parts[::-1].index(_ANCHOR)
    inside = [part for part in parts[anchor + 1 : -1] if part != "data"]
    if anchor < 3 or not inside:
        return None
    split = inside[0] if inside[0] in _SPLITS and len(inside) > 1 else ""
    if parts[-1] != _TRAJECTORY and path.stem != inside[-1]:
        inside.append(path.stem)  # several files in one folder stay apart
    benchmark = [parts[anchor - 3]] if parts[anchor - 3].startswith("benchmark") else []
    folder, task = parts[anchor - 2], parts[anchor - 1]
    source_id = PurePosixPath(*benchmark, folder, task, _ANCHOR, *inside).as_posix()
    return Trajectory(path, source_id, folder, task, split, inside[-1])


def release_of(file: h5py.File) -> int | None:
    """Return 1 or 2 by the names of the top groups, or None if they are of neither release.

    A file of 2.0 whose data were never written still has its groups ``camera_*``.
    """
    try:
        names = set(file)
        if any(name.startswith("camera_") for name in names):
            return 2
        streams = [str(key) for side in ("puppet", "master") if side in names for key in file[side]]  # type: ignore[union-attr]
    except DAMAGE as error:
        raise EpisodeError(f"the groups of the file cannot be listed: {error}; copy it again") from error
    if any(stream.endswith(("_align", "_raw")) for stream in streams):
        return 2
    return 1 if names & {"observations", "puppet", "franka", "tiangong"} else None


def find_trajectories(path: Path, release: int) -> list[Trajectory]:
    """Return all trajectories at or below `path`, sorted by source id.

    Raises:
        DatasetError: There is none, two have the same name, or the files are of the other release.
    """
    files = [path] if path.is_file() else _files(path)
    parsed = (parse_trajectory(file) for file in files)
    found = sorted(
        (t for t in parsed if t is not None and (release == 2 or t.path.name == _TRAJECTORY)),
        key=lambda t: t.source_id,
    )
    if not found:
        raise DatasetError(
            f"{path} holds no <embodiment>/<task>/success_episodes/.../{_TRAJECTORY}; check the path"
        )
    for first, second in itertools.pairwise(found):
        if first.source_id == second.source_id:
            raise DatasetError(
                f"{first.path} and {second.path} are both called {first.source_id}; convert them apart"
            )
    other = _release_of_some(found)
    if other is not None and other != release:
        raise DatasetError(
            f"{path} holds files of RoboMIND {'2.0' if other == 2 else '1.x'}, which {FORMATS[release]} does not read; "
            f"use --format {FORMATS[other]}"
        )
    return found


def probe_tree(path: Path, release: int) -> str | None:
    """Return one trajectory of a release at or below `path`, looking at a bounded number of folders and files."""
    found: list[Trajectory] = []
    folders = [path.parent] if path.is_file() else _walk(path, _PROBE_DEPTH)
    for count, folder in enumerate(folders):
        if count >= _PROBE_FOLDERS or len(found) >= _PROBE_FILES:
            break
        files = [path] if path.is_file() else sorted(folder.glob("*.hdf5"))
        found += [t for t in map(parse_trajectory, files[:_PROBE_FILES]) if t is not None]
    if not found:
        return None
    seen = _release_of_some(found)
    if seen is None:  # nothing readable: go by the name of the folder
        seen = 1 if found[0].folder.startswith("h5_") else 2
    return str(found[0].path) if seen == release else None


def tree_checksum(trajectories: Sequence[Trajectory]) -> str:
    """Hash names and sizes; reading terabytes only to notice a change would cost more than converting again."""
    digest = hashlib.blake2b(digest_size=16)
    for trajectory in trajectories:
        try:
            size = trajectory.path.stat().st_size
        except OSError:  # a broken link; found out when it is read
            size = -1
        digest.update(f"{trajectory.source_id}\0{size}\n".encode())
    return digest.hexdigest()


def _release_of_some(trajectories: Sequence[Trajectory]) -> int | None:
    """Return the release of the first file of known layout among a few that are spread over the list."""
    step = max(1, len(trajectories) // _PROBE_FILES)
    for trajectory in trajectories[::step][:_PROBE_FILES]:
        try:
            release = call_isolated(_release_of_file, trajectory.path)
        except DatasetError:  # damaged files are found out when they are read
            continue
        if release is not None:
            return release
    return None


def _release_of_file(path: Path) -> int | None:
    with open_hdf5(path) as file:
        return release_of(file)


def _files(path: Path) -> Iterator[Path]:
    """Yield all HDF5 files below a folder, also those that cannot be read, so that they are missed by name."""
    for folder in _walk(path, None):
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".hdf5"))
        except OSError as error:
            raise DatasetError(
                f"{folder} cannot be listed: {error.strerror}; change its permissions"
            ) from error
        yield from (folder / name for name in names if not (folder / name).is_dir())


def _walk(path: Path, depth: int | None, seen: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield a folder and those below it, in order; links to folders are followed, but never in a circle."""
    try:
        status = path.stat()
        here = (status.st_dev, status.st_ino)
        folders = sorted(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=True))
    except OSError:  # a folder that cannot be listed holds nothing for us
        folders, here = [], (0, 0)
    if here in seen:
        return
    yield path
    if depth == 0:
        return
    for folder in folders:
        yield from _walk(Path(folder), None if depth is None else depth - 1, seen | {here})
