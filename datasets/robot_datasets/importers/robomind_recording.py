"""What both releases of RoboMIND do alike with an embodiment and with an open file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.importers.base import Option, Rejected
from robot_datasets.importers.hdf5_reading import DAMAGE, find_dataset
from robot_datasets.importers.hdf5_vlen import check_byte_strings
from robot_datasets.importers.robomind_frames import (
    ColourRule,
    DepthRule,
    depth_is_metres,
    moves,
    stream_frames,
)
from robot_datasets.importers.robomind_quality import ArmColumns, frozen_joints
from robot_datasets.importers.robomind_survey import Camera
from robot_datasets.importers.robomind_tree import Trajectory
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.schemas import EmbodimentSchema, find_schema

if TYPE_CHECKING:
    import h5py

_MOST_FRAMES = 10_000_000

COMMON_OPTIONS = (
    Option("embodiment", "", "embodiment folder, needed if the tree holds several"),
    Option("tasks", "", "task folders, comma-separated; empty = all"),
    Option(
        "action", "", "what an action is: puppet_next, puppet_same, master; empty = as the authors advise"
    ),
    Option("cameras", "", "colour cameras, comma-separated; empty = all of the embodiment"),
    Option("depth", "keep", "keep depth images, or drop them", ("keep", "drop")),
    Option(
        "frame_size", "measured", "measured = frames of another size are an error; any", ("measured", "any")
    ),
    Option("min_steps", "50", "shorter episodes are warned about, or dropped"),
    Option("short_episodes", "keep", "what to do with episodes of fewer steps", ("keep", "drop")),
)
"""Options of both importers."""


def choose_embodiment(
    path: Path, trajectories: Sequence[Trajectory], format: str, wanted: str
) -> tuple[EmbodimentSchema, list[Trajectory]]:
    """Return the schema, and the trajectories it is for.

    Raises:
        DatasetError: The tree has several embodiments and none was chosen, or one that no schema knows.
    """
    folders = sorted({t.folder for t in trajectories})
    if wanted:
        if wanted not in folders:
            raise DatasetError(f"{path}: {unknown_name('embodiment folder', wanted, folders)}")
        folders = [wanted]
    schemas = {folder: find_schema(format, folder) for folder in folders}
    if len({schema.name for schema in schemas.values()}) > 1:
        raise DatasetError(
            f"{path} holds several embodiments ({', '.join(folders)}); a store has one, "
            f"choose with --option embodiment={folders[0]}"
        )
    return schemas[folders[0]], [t for t in trajectories if t.folder in schemas]


def common_choices(
    trajectories: Sequence[Trajectory], columns: SchemaColumns, cameras: Sequence[Camera], fps: float
) -> dict[str, str]:
    """Return the values in force of options that were left empty."""
    return {
        "embodiment": ",".join(sorted({t.folder for t in trajectories})),
        "action": columns.action,
        "cameras": ",".join(c.feature.rpartition(".")[2] for c in cameras if not c.is_depth),
        "fps": f"{fps:g}",
    }


def only_tasks(
    trajectories: Sequence[Trajectory], wanted: str, unwanted: Mapping[str, str]
) -> tuple[list[Trajectory], list[Rejected]]:
    """Return the trajectories of the wanted tasks (empty = all), and those dropped because of their task.

    Args:
        trajectories: All of them.
        wanted: Task folders, comma-separated.
        unwanted: Task folder -> why it is dropped.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = {t.task for t in trajectories}
    for name in names:
        if name not in known:
            raise DatasetError(f"option tasks: {unknown_name('task', name, known)}")
    mine = [t for t in trajectories if not names or t.task in names]
    dropped = [
        Rejected(
            t.source_id, f"task: the instruction is known to be wrong: {unwanted[t.task]}; dirty_tasks=drop"
        )
        for t in mine
        if t.task in unwanted
    ]
    return [t for t in mine if t.task not in unwanted], dropped


def of_width(values: np.ndarray, schema: EmbodimentSchema, key: str) -> np.ndarray:
    """Return an array if it has as many components per step as the schema knows of its key.

    Raises:
        EpisodeError: It has others; a schema that takes only the first ones would not notice.
    """
    sources = [*schema.features.values(), *schema.actions.values()]
    ends = [part.columns[1] for s in sources for part in s.parts if part.source == key and part.columns]
    width = int(np.prod(values.shape[1:]))
    if ends and width != max(ends):
        raise EpisodeError(
            f"{key} has {width} components per step, expected {max(ends)}; is it another robot's?"
        )
    return values


def camera_dataset(file: h5py.File, camera: Camera) -> Any:
    """Return the dataset of a camera's frames; if it is missing, an `EpisodeError` says what is there instead."""
    dataset = find_dataset(file, camera.key)
    if dataset is not None:
        check_byte_strings(dataset)
        if len(dataset) > _MOST_FRAMES:
            raise EpisodeError(
                f"{camera.key} claims {len(dataset)} frames; the file is damaged, copy it again"
            )
        return dataset
    group, _, name = camera.key.rpartition("/")
    try:
        found: Iterable[str] = sorted(file[group]) if group in file else []  # type: ignore[arg-type]
    except DAMAGE:
        found = []
    raise EpisodeError(
        f"{group} has {', '.join(found) or 'no cameras'}, expected {name}; convert such episodes apart "
        "with --option cameras=... or depth=drop"
    )


def frames_of(
    sources: Mapping[str, tuple[Camera, Any, str]],
    rows_of: Callable[[int, str], np.ndarray],
    n_recorded: int,
    steps: slice,
) -> tuple[dict[str, Iterable[bytes]], list[str]]:
    """Return the frames of every camera, one per step, and what was noticed.

    Args:
        sources: Image feature -> camera, dataset, colour order of the file.
        rows_of: Which row of an array of n rows belongs to each recorded step.
        n_recorded: Recorded steps.
        steps: Those that are stored.

    Raises:
        EpisodeError: A camera has not one frame for each recorded step.
    """
    images: dict[str, Iterable[bytes]] = {}
    warnings: list[str] = []
    for name, (camera, dataset, order) in sources.items():
        rows = rows_of(len(dataset), camera.key)
        if len(rows) != n_recorded:
            raise EpisodeError(
                f"arrays differ in length: {camera.key} {len(rows)}, joints {n_recorded}; expected one row per step"
            )
        if camera.is_depth:
            rule: ColourRule | DepthRule = DepthRule(depth_is_metres(dataset), camera.size)
            if rule.metres:
                warnings.append(
                    f"{name}: nothing is above 100, so by the authors' rule it is in metres; converted to mm"
                )
        else:
            rule = ColourRule(order, camera.stored, camera.size)
            if order != camera.stored:
                warnings.append(
                    f"{name}: the file's colour order differs from most; its frames were encoded anew"
                )
        images[name] = stream_frames(dataset, rows[steps], rule)
    return images, warnings


def still_warnings(
    state: np.ndarray, arms: Sequence[ArmColumns], cameras: Sequence[Camera], file: h5py.File
) -> list[str]:
    """Warn if no joint of any arm moves, and say whether the first camera's picture does."""
    if not arms or not all(frozen_joints(state[:, arm.joints]) for arm in arms):
        return []
    colour = [camera for camera in cameras if not camera.is_depth]
    moving = bool(colour) and moves(
        camera_dataset(file, colour[0]), ColourRule(colour[0].stored, colour[0].stored)
    )
    what = "though the video does" if moving else "nor does the video much"
    return [f"observation.state: no joint moves in {len(state)} steps, {what}; the recording may be frozen"]


def length_warnings(n_steps: int, least: int, options: Mapping[str, str]) -> list[str]:
    """Warn about a short episode, or refuse it, as the options say."""
    if n_steps >= least:
        return []
    if options["short_episodes"] == "drop":
        raise EpisodeError(f"{n_steps} steps, fewer than min_steps={least}; short_episodes=drop")
    return [
        f"{n_steps} steps are few, the recording may be broken; short_episodes=drop leaves out those below {least}"
    ]
