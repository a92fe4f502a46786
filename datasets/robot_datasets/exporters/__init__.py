"""Exporters by format name: a store written in another format."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.exporters.base import Exporter, ExportReport, staged_folder
from robot_datasets.importers.base import resolve_options
from robot_datasets.store import EpisodeStore

_BUILT_IN = {
    "diffusion_policy_zarr": "robot_datasets.exporters.diffusion_policy:DiffusionPolicyBuffer",
    "interndata": "robot_datasets.exporters.interndata:InternDataSet",
    "lerobot-v2.1": "robot_datasets.exporters.lerobot:LeRobotV21",
    "lerobot-v3": "robot_datasets.exporters.lerobot:LeRobotV3",
    "robomimic_hdf5": "robot_datasets.exporters.robomimic:RobomimicFile",
    "robomind": "robot_datasets.exporters.robomind:RoboMindTree",
}


def exporter_names() -> list[str]:
    """Return all known format names, sorted."""
    return sorted(_BUILT_IN)


def get_exporter(name: str) -> Exporter:
    """Return the exporter of a format; unknown names are an error with the nearest match."""
    if name not in _BUILT_IN:
        raise DatasetError(unknown_name("export format", name, exporter_names()))
    module, _, attribute = _BUILT_IN[name].partition(":")
    return getattr(import_module(module), attribute)()


def export(
    store: EpisodeStore,
    target: str | Path,
    *,
    format: str,
    options: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write `store` to the folder or file `target` in another format; it appears there whole or not at all.

    Args:
        store: The store.
        target: Folder to make, or file if the format is one.
        format: Exporter name.
        options: The exporter's options, text values.
        overwrite: Replace a dataset of the same format at `target`.
        progress: Called with (episodes done, all) after every episode.

    Raises:
        DatasetError: Unknown format or option, something the format cannot hold, or `target` is taken.
    """
    began = time.monotonic()
    exporter = get_exporter(format)
    resolved = resolve_options(exporter, options or {})
    warnings = exporter.check(store, resolved)
    endings = exporter.file_endings
    if endings and Path(target).suffix not in endings:
        raise DatasetError(
            f"{target} is to be a file of {exporter.name}; end its name in {' or '.join(endings)}"
        )
    with staged_folder(
        Path(target), overwrite=overwrite, replaceable=exporter.recognises, is_file=bool(endings)
    ) as folder:
        exporter.write(store, folder, resolved, progress or (lambda done, total: None))
    return ExportReport(
        source=store.path,
        target=str(target),
        format=exporter.name,
        options=resolved,
        n_episodes=store.n_episodes,
        n_steps=store.n_steps,
        warnings=warnings,
        seconds=time.monotonic() - began,
    )
