"""Finding the LeRobot sets of an InternData-A1 tree: unpacked folders, and archives that are read as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from robot_datasets.archives import ArchiveError, ArchiveLimits, archive_stem, index_archive
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import Rejected
from robot_datasets.importers.file_tree import (
    FileTree,
    FolderTree,
    dataset_roots,
    is_archive,
    open_archive,
)
from robot_datasets.importers.lerobot_meta import INFO_FILE, read_json
from robot_datasets.schemas import EmbodimentSchema, schemas_of

FORMAT = "interndata"
_PROBED_FOLDERS = 2000
_PROBED_MEMBERS = 64


@dataclass(frozen=True)
class SetPlace:
    """One LeRobot set of a source.

    Attributes:
        name: Its path below the source, archive suffixes left out; unique. Empty if it is the source itself.
        archive: Path of the archive below the source; empty if it is a folder. ``"."`` if it is the source itself.
        folder: Path of its folder, below the source or inside the archive.
    """

    name: str
    archive: str
    folder: str


def open_set(source: Path, place: SetPlace, limits: ArchiveLimits) -> FileTree:
    """Return the files of a set."""
    if not place.archive:
        return FolderTree(source / place.folder)
    tree: FileTree = open_archive(source / place.archive if place.archive != "." else source, limits)
    return tree.below(place.folder) if place.folder else tree


def find_sets(
    source: Path, limits: ArchiveLimits, rejected: list[Rejected], warnings: list[str]
) -> Iterator[SetPlace]:
    """Yield all sets at and below `source`: folders first, then those of each archive while it is open.

    Args:
        source: A set, a tree of sets, or an archive.
        limits: What archives may expand to.
        rejected: Takes the archives that cannot be used.
        warnings: Takes the archives that lie beside the folder unpacked from them; the folder is read.
    """
    if is_archive(source):
        yield from _archive_sets(source, ".", limits, PurePosixPath())
        return
    found: dict[str, SetPlace] = {}
    archives: list[Path] = []
    for folder, paths in _walk(source):
        if folder is not None:
            name = folder.relative_to(source).as_posix()
            found[name] = SetPlace("" if name == "." else name, "", name)
        archives += paths
    yield from sorted(found.values(), key=lambda place: place.name)
    for path in archives:
        relative = path.relative_to(source)
        stem = PurePosixPath(relative.parent.as_posix(), archive_stem(path.name))
        try:
            inside = _archive_sets(path, relative.as_posix(), limits, stem)
        except ArchiveError as error:
            rejected.append(Rejected(relative.as_posix(), str(error)))
            continue
        if not inside:
            rejected.append(Rejected(relative.as_posix(), _nothing_inside(path, limits)))
        for place in inside:
            if place.name in found:
                warnings.append(
                    f"{relative.as_posix()} lies beside the folder unpacked from it; the folder is read"
                )
            else:
                found[place.name] = place
                yield place


def _archive_sets(path: Path, relative: str, limits: ArchiveLimits, stem: PurePosixPath) -> list[SetPlace]:
    """List the sets inside an archive; a task's folder of its own name inside is not repeated in theirs."""
    places = []
    for root in dataset_roots(open_archive(path, limits)):
        parts = PurePosixPath(root).parts
        own_folder = bool(parts) and parts[0] == stem.name
        name = (stem.parent if own_folder else stem).joinpath(root).as_posix()
        places.append(SetPlace("" if name == "." else name, relative, root))
    return places


def _nothing_inside(path: Path, limits: ArchiveLimits) -> str:
    damage = open_archive(path, limits).damage
    return f"it holds no {INFO_FILE}{f' before the damage ({damage})' if damage else ''}; copy it again"


def _walk(source: Path) -> Iterator[tuple[Path | None, list[Path]]]:
    """Yield folders that are sets, which are not entered, and the archives in other folders."""
    for place, folders, names in os.walk(source, followlinks=True):
        folder = Path(place)
        if (folder / INFO_FILE).is_file():
            folders.clear()
            yield folder, []
            continue
        folders.sort()
        yield None, [folder / name for name in sorted(names) if archive_stem(name)]


def has_known_columns(features: Mapping[str, Any]) -> bool:
    """Whether info.json's features are those of a known embodiment of InternData-A1."""
    return any(_required(schema) <= set(features) for schema in schemas_of(FORMAT))


def _required(schema: EmbodimentSchema) -> set[str]:
    """Return the columns without which a set is not of this embodiment."""
    sources = [s for s in schema.features.values() if not s.optional] + [schema.action_source()]
    return {part.source for source in sources for part in source.parts}


def probe_source(path: Path) -> str:
    """Say by what a source is recognised, looking at a bounded number of folders; empty if it is not."""
    if is_archive(path):
        return _probe_archive(path)
    if not path.is_dir():
        return ""
    for count, (folder, archives) in enumerate(_walk(path)):
        if folder is not None:
            relative = folder.relative_to(path).as_posix()
            return f"columns of {relative}/{INFO_FILE}" if _is_known(FolderTree(folder)) else ""
        for archive in archives:
            if detail := _probe_archive(archive):
                return detail
        if count >= _PROBED_FOLDERS:
            break
    return ""


def _probe_archive(path: Path) -> str:
    """Recognise an archive by its first members: folders ``set_<n>`` of a LeRobot set."""
    try:
        index = index_archive(path, first=_PROBED_MEMBERS)
    except (ArchiveError, OSError):
        return ""
    for name in index.members:
        folders = PurePosixPath(name).parts
        at = next((i for i, part in enumerate(folders) if part in ("data", "meta", "videos")), 0)
        if at and folders[at - 1].removeprefix("set_").isdecimal() and folders[at - 1].startswith("set_"):
            return f"{path.name} with {'/'.join(folders[: at + 1])}"
    return ""


def _is_known(tree: FileTree) -> bool:
    try:
        info = read_json(tree, INFO_FILE)
    except DatasetError:
        return False
    features = info.get("features") if isinstance(info, Mapping) else None
    return isinstance(features, Mapping) and has_known_columns(features)
