"""Importers by format name: the built-in ones, and installed ones of others.

Another package adds an importer through the entry point group ``robot_datasets.importers``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.importers.base import Importer
from robot_datasets.importers.nearby import sources_below

ENTRY_POINT_GROUP = "robot_datasets.importers"

_BUILT_IN = {
    "aloha": "robot_datasets.importers.aloha:Aloha",
    "diffusion_policy_zarr": "robot_datasets.importers.diffusion_policy_zarr:DiffusionPolicyZarr",
    "interndata": "robot_datasets.importers.interndata:InternData",
    "lerobot": "robot_datasets.importers.lerobot:LeRobot",
    "rlds": "robot_datasets.importers.rlds:Rlds",
    "robomimic_hdf5": "robot_datasets.importers.robomimic_hdf5:RobomimicHdf5",
    "robomind": "robot_datasets.importers.robomind_hdf5:RoboMindHdf5",
    "robomind2": "robot_datasets.importers.robomind2_hdf5:RoboMind2Hdf5",
    "rosbag2": "robot_datasets.importers.rosbag2:Rosbag2",
}


def importer_names() -> list[str]:
    """Return all known format names, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in _installed())})


def get_importer(name: str) -> Importer:
    """Return the importer of a format; unknown names are an error with the nearest match."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return getattr(import_module(module), attribute)()
    for point in _installed():
        if point.name == name:
            return point.load()()
    raise DatasetError(unknown_name("format", name, importer_names()))


@lru_cache(maxsize=1)
def _installed() -> tuple[EntryPoint, ...]:
    """Return what installed packages offer; looking through all of them takes a tenth of a second."""
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def detect_source(path: Path) -> tuple[Importer, Path]:
    """Return the one importer that recognises `path`, and what it reads: `path`, or the only source below it.

    Raises:
        DatasetError: The path does not exist, or no importer or more than one recognises it; if sources lie below it,
            the error says where.
    """
    if not path.exists():
        raise DatasetError(f"{path} does not exist; check the path of the source")
    importers = [get_importer(name) for name in importer_names()]
    matching = [importer for importer in importers if importer.probe(path) is not None]
    below = sources_below(path, importers) if not matching and path.is_dir() else []
    if len(below) == 1:
        path, matching = below[0]
    if len(matching) == 1:
        return matching[0], path
    if matching:
        names = ", ".join(importer.name for importer in matching)
        raise DatasetError(f"{path} looks like several formats ({names}); choose one with --format")
    if below:
        places = ", ".join(f"{found} ({'/'.join(i.name for i in known)})" for found, known in below)
        raise DatasetError(f"{path} is no source itself, but holds several; convert one at a time: {places}")
    known = "; ".join(f"{importer.name} = {importer.summary}" for importer in importers)
    raise DatasetError(
        f"{path} is of no known format. Known: {known}. Name one with --format to see what is wrong"
    )


def detect_importer(path: Path) -> Importer:
    """Return the importer that `detect_source` finds; raises what that raises."""
    return detect_source(path)[0]
