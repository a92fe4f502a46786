"""Planning the conversion of many sets into one store: one robot, one rate, the columns and cameras of all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.importers.base import Rejected
from robot_datasets.importers.file_tree import archive_limits
from robot_datasets.importers.interndata_robot import RobotChoice, lacks, misfit
from robot_datasets.importers.interndata_sets import SetPlace, open_set
from robot_datasets.importers.lerobot_cameras import Frames
from robot_datasets.importers.lerobot_features import FeaturePlanner
from robot_datasets.importers.lerobot_places import LeRobotSet
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.importers.settings import chosen_names, positive_rate
from robot_datasets.schemas import EmbodimentSchema


@dataclass(frozen=True, kw_only=True)
class ExaminedSet:
    """What planning learnt of one set.

    Attributes:
        place: Where it is.
        schema: The robot it is read as.
        told: Name of the schema that its columns, folders and metadata tell; empty if they do not.
        columns: Source column -> its type and shape.
        cameras: Camera of the schema -> its videos, if there are any.
        lost: Cameras whose videos the damage of the archive cost.
        sizes: Camera -> shape of a frame.
        fps: Rate of the steps [Hz].
        episodes: Numbers of those that have all files.
        rejected: Number -> why not, of the others.
        checksum: Changes when the set does.
    """

    place: SetPlace
    schema: EmbodimentSchema
    told: str
    columns: Mapping[str, Feature]
    cameras: Mapping[str, Frames]
    lost: frozenset[str]
    sizes: Mapping[str, tuple[int, ...]]
    fps: float
    episodes: tuple[int, ...]
    rejected: Mapping[int, str]
    checksum: str


def examine(
    source: Path, place: SetPlace, robots: RobotChoice, options: Mapping[str, str], warnings: list[str]
) -> ExaminedSet:
    """Look into one set; its complaints are noted under its name."""
    found = LeRobotSet(open_set(source, place, archive_limits(options)))
    own = list(found.warnings)
    planner = FeaturePlanner(found, {"cameras": "", "timestamps": "drop"}, own)
    plan, features = planner.columns()
    columns = {key: features[name] for name, key in plan.numbers.items()}
    widths = {key: int(np.prod(feature.shape)) for key, feature in columns.items()}
    folders = PurePosixPath(source.resolve().name, place.name).parts
    try:
        told = robots.told(found.info.robot_type, folders, widths, planner.reach)
    except DatasetError:
        if robots.named is None:
            raise
        told = None
    schema = robots.named or told
    assert schema is not None
    if reason := misfit(schema, widths):
        raise DatasetError(f"it is not of robot {schema.name}: {reason}")
    if reason := lacks(schema.action_source(options["action"]), widths):
        raise DatasetError(
            f"action {options['action']}: {reason}; choose another of {', '.join(schema.actions)} "
            "with --option action=..."
        )
    videos = {frames.key: (name, frames) for name, frames in plan.cameras.items() if not frames.depth}
    cameras = {n: videos[c.source][1] for n, c in schema.cameras.items() if c.source in videos}
    sizes = {n: features[videos[frames.key][0]].shape for n, frames in cameras.items()}
    fps = planner.rate()
    episodes = found.with_videos({n: frames.key for n, frames in cameras.items()})
    warnings += [f"{place.name}: {text}" if place.name else text for text in own]
    return ExaminedSet(
        place=place,
        schema=schema,
        told=told.name if told is not None else "",
        columns=columns,
        cameras=cameras,
        lost=frozenset(
            n for n, c in schema.cameras.items() if found.tree.damage and c.source in planner.lost_cameras
        ),
        sizes=sizes,
        fps=fps,
        episodes=tuple(episodes),
        rejected=dict(found.rejected),
        checksum=found.checksum(),
    )


def of_one_robot(
    path: Path, sets: list[ExaminedSet], named: bool, rejected: list[Rejected], warnings: list[str]
) -> list[ExaminedSet]:
    """Return the sets of the one robot; several are an error that says how to choose.

    Args:
        path: The source.
        sets: All that can be read; those whose columns do not fit a named robot are not among them.
        named: Whether the robot was given as an option.
        rejected: Takes the sets that say they are another robot than the named one.
        warnings: Takes the contradiction, if all say they are another.
    """
    counts = Counter(entry.told if named else entry.schema.name for entry in sets)
    schema = sets[0].schema.name
    if named and schema in counts:
        rejected += [
            Rejected(entry.place.name or path.name, f"it is of robot {entry.told}, not {schema}")
            for entry in sets
            if entry.told not in ("", schema)
        ]
        return [entry for entry in sets if entry.told in ("", schema)]
    told = ", ".join(f"{name} ({n} sets)" for name, n in counts.most_common() if name)
    if named and told:
        warnings.append(
            f"read as {schema} because of --option robot; the sets themselves are told to be {told}"
        )
    if not named and len(counts) > 1:
        raise DatasetError(
            f"{path} holds several robots: {told}; a store holds one, convert the folder of each, "
            "or choose with --option robot=..."
        )
    return sets


def of_one_rate(
    path: Path, sets: list[ExaminedSet], wanted: str, rejected: list[Rejected]
) -> tuple[list[ExaminedSet], float]:
    """Return the sets of one rate, the commonest or the wanted one; the others are rejected."""
    fps = positive_rate(wanted, path) if wanted else Counter(entry.fps for entry in sets).most_common(1)[0][0]
    kept = [entry for entry in sets if entry.fps == fps]
    if not kept:
        rates = ", ".join(f"{rate:g}" for rate in sorted({entry.fps for entry in sets}))
        raise DatasetError(f"{path} has no set of {fps:g} Hz; there are sets of {rates} Hz")
    rejected += [
        Rejected(
            entry.place.name or path.name,
            f"it runs at {entry.fps:g} Hz, the store at {fps:g}; convert it apart with --option fps={entry.fps:g}",
        )
        for entry in sets
        if entry.fps != fps
    ]
    return kept, fps


def common_columns(
    sets: Sequence[ExaminedSet], schema: EmbodimentSchema, action: str, warnings: list[str]
) -> SchemaColumns:
    """Choose the features that all sets have."""
    columns = SchemaColumns.of(schema, action, lambda key: all(key in entry.columns for entry in sets))
    partly = SchemaColumns.of(schema, action, lambda key: any(key in entry.columns for entry in sets))
    for name in sorted(set(partly.names) - set(columns.names)):
        warnings.append(f"{name} is left out, because some of the {len(sets)} sets lack it")
    return columns


def common_cameras(
    sets: Sequence[ExaminedSet], schema: EmbodimentSchema, option: str, rejected: list[Rejected]
) -> dict[str, Frames]:
    """Return the cameras of the store: those that any set has, or the chosen ones; sets without are rejected."""
    there = [
        name for name in schema.cameras if any(name in entry.cameras or name in entry.lost for entry in sets)
    ]
    wanted = chosen_names(option, there, "cameras")
    for entry in sets:
        lacking = [name for name in wanted if name not in entry.cameras]
        left = ",".join(name for name in wanted if name not in lacking)
        if lacking:
            remedy = f", or convert without: --option cameras={left}" if left else ""
            rejected.append(
                Rejected(entry.place.name, f"it has no videos of camera {lacking[0]}; copy it again{remedy}")
            )
    complete = [entry for entry in sets if set(wanted) <= set(entry.cameras)]
    if not complete:
        raise DatasetError(f"no set has all cameras ({', '.join(wanted)}); {rejected[-1].reason}")
    return {name: complete[0].cameras[name] for name in wanted}


def used_columns(columns: SchemaColumns, sets: Sequence[ExaminedSet]) -> list[str]:
    """Return the source columns that features, the action, or the checks of an episode need."""
    needed = {part.source for source in columns.sources().values() for part in source.parts}
    compared = {key.replace("actions.", "states.", 1) for key in needed} | {
        key.replace("states.", "actions.", 1) for key in needed if key.endswith("joint.position")
    }
    return sorted(needed | {key for key in compared if all(key in entry.columns for entry in sets)})


def camera_feature(sizes: Sequence[tuple[int, ...]]) -> Feature:
    """Describe a camera; its size varies if it differs between sets."""
    same = len(set(sizes)) == 1
    return Feature(dtype="uint8", shape=sizes[0] if same else (0, 0, 3))


def checksum(sets: Sequence[ExaminedSet]) -> str:
    """Hash the names and checksums of all sets."""
    digest = hashlib.blake2b(digest_size=16)
    for entry in sets:
        digest.update(f"{entry.place.name}\0{entry.checksum}\n".encode())
    return digest.hexdigest()
