"""RoboMIND 2.0: one HDF5 file per episode, two-armed robots, streams of ``{data, timestamp, is_intervene}``.

Nothing of the keys of 1.x survives. Only the streams ``*_align`` are read: they have one row for each camera frame,
while ``*_raw`` repeats them on clocks of their own. What files say of themselves is believed where it was found
to be true (the order of colours, file by file) and measured otherwise (frame sizes, rates).
See docs/datasets/robomind.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.features import STATE, Feature
from robot_datasets.importers.base import EpisodeRef, Option, Plan
from robot_datasets.importers.hdf5_reading import open_hdf5
from robot_datasets.importers.robomind2_file import (
    TIMES,
    decoded_order,
    find_stream,
    instruction_in,
    intervention_segments,
    is_skeleton,
    measured_rate,
    read_stream,
)
from robot_datasets.importers.robomind2_times import median_rate
from robot_datasets.importers.robomind_importer import RoboMindImporter
from robot_datasets.importers.robomind_language import instruction_from_folder, read_description
from robot_datasets.importers.robomind_pose import quaternion_order, repaired, to_xyzw
from robot_datasets.importers.robomind_quality import END_EFFECTOR, ArmColumns, arms_of
from robot_datasets.importers.robomind_recording import (
    COMMON_OPTIONS,
    camera_dataset,
    choose_embodiment,
    common_choices,
    frames_of,
    length_warnings,
    only_tasks,
    still_warnings,
)
from robot_datasets.importers.robomind_survey import (
    Camera,
    FileFacts,
    Probes,
    Survey,
    choose_cameras,
    file_facts,
    survey,
    surveyed_cameras,
)
from robot_datasets.importers.robomind_tree import (
    Trajectory,
    find_trajectories,
    tree_checksum,
)
from robot_datasets.importers.schema_columns import SchemaColumns
from robot_datasets.importers.settings import positive_rate, whole_number
from robot_datasets.isolation import call_isolated
from robot_datasets.schemas import EmbodimentSchema

if TYPE_CHECKING:
    import h5py

_FILES_PER_TASK = 5
_TACTILE = "observation.tactile"
_TACTILE_VALID = "observation.tactile_valid"
_TACTILE_INVALID = 65535.0
_RATE_TOLERANCE = 0.1
_COARSEST_RATE = 0.2
"""Relative uncertainty beyond which a short recording says nothing of its task's rate."""


@dataclass(frozen=True)
class _Context:
    """What reading an episode needs besides the plan's options."""

    columns: SchemaColumns
    cameras: tuple[Camera, ...]
    arms: tuple[ArmColumns, ...]
    min_steps: int
    descriptions: Mapping[str, tuple[str, str]]
    task_rates: Mapping[str, float]
    fps: float
    rate_is_given: bool
    quaternion: str


class RoboMind2Hdf5(RoboMindImporter):
    """Importer of RoboMIND 2.0 trajectories."""

    name = "robomind2"
    version = 1
    summary = "RoboMIND 2.0, a tree of data/<embodiment>/<task>/success_episodes/<stamp>/data/*.hdf5"
    release = 2
    options = (
        *COMMON_OPTIONS,
        Option(
            "fps", "", "rate [Hz]; empty = measured from the frames' times, episodes far off are set aside"
        ),
        Option(
            "language",
            "auto",
            "instruction: from the file, zh_description.txt, or the folder's name; auto = the first there is",
            ("auto", "metadata", "description", "folder"),
        ),
        Option(
            "quaternion",
            "auto",
            "order of recorded quaternions; auto = by the arms' kinematics where known, else xyzw",
            ("auto", "xyzw", "wxyz"),
        ),
        Option(
            "colour_order",
            "",
            "what the files' colour flags should say, if they are wrong",
            ("", "rgb", "bgr"),
        ),
        Option("optional", "keep", "features that only some files have: keep, or drop", ("keep", "drop")),
    )

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the files, and look at five of each task."""
        min_steps = whole_number(options["min_steps"], "min_steps")
        everything = find_trajectories(path, self.release)
        schema, mine = choose_embodiment(path, everything, self.name, options["embodiment"])
        mine, _ = only_tasks(mine, options["tasks"], {})
        found = _look(mine, schema, options)
        cameras = surveyed_cameras(choose_cameras(schema, options), found, options, schema.name)
        keeps = options["optional"] == "keep"
        columns = SchemaColumns.of(schema, options["action"], lambda key: keeps and found.has(key))
        features = _with_validity(columns.features(lambda key: 0))
        arms = tuple(arms_of(features))
        task_rates = {task: median_rate(rates) for task, rates in found.rates.items()}
        measured = str(median_rate(list(task_rates.values()))) if task_rates else ""
        fps = positive_rate(
            options["fps"] or measured, f"{path} (its frames' times do not advance, or last too short)"
        )
        quaternion, pose_facts = _quaternion(schema, columns, arms, mine, options["quaternion"])
        task_folders = {t.task: t for t in mine}
        descriptions = {task: read_description(_task_folder(t)) for task, t in task_folders.items()}
        notes = {
            "schema": schema.name,
            "schema_digest": schema.digest,
            "rate": "given" if options["fps"] else "measured",
            "task_rates_hz": task_rates,
            "warnings": found.left_out(schema, columns.names) if keeps else [],
            "tasks_without_description": sorted(t for t, (text, _) in descriptions.items() if not text),
        }
        return Plan(
            source=path,
            options=dict(options) | common_choices(mine, columns, cameras, fps) | {"quaternion": quaternion},
            refs=[EpisodeRef(t.source_id, t) for t in mine],
            features=features | {c.feature: c.describe() for c in cameras},
            fps=fps,
            embodiment=schema.robot,
            checksum=tree_checksum(mine),
            image_encodings={c.feature: c.encoding for c in cameras},
            notes=notes | pose_facts,
            context=_Context(
                columns,
                cameras,
                arms,
                min_steps,
                descriptions,
                task_rates,
                fps,
                bool(options["fps"]),
                quaternion,
            ),
        )

    def read(self, file: h5py.File, trajectory: Trajectory, plan: Plan) -> Episode:
        """Read one trajectory."""
        return _episode(file, trajectory, plan)


def _episode(file: h5py.File, trajectory: Trajectory, plan: Plan) -> Episode:
    context: _Context = plan.context
    if is_skeleton(file):
        raise EpisodeError(
            "the file is a skeleton of groups without a dataset; its recording was never written"
        )
    data, steps = context.columns.read(lambda key: read_stream(file, key, context.columns))
    warnings = _rate_warnings(file, trajectory, context)
    n_steps = steps.stop - steps.start
    if _TACTILE in data:
        valid = data[_TACTILE] != _TACTILE_INVALID
        data |= {_TACTILE: np.where(valid, data[_TACTILE], 0), _TACTILE_VALID: valid}
    if END_EFFECTOR in data:
        data[END_EFFECTOR] = _in_order(data[END_EFFECTOR], context.arms, context.quaternion)
        warnings += repaired(data, context.arms, None)[1]
    sources = {
        c.feature: (
            c,
            camera_dataset(file, c),
            "" if c.is_depth else decoded_order(file, c.key, plan.options),
        )
        for c in context.cameras
    }
    images, notes = frames_of(sources, lambda n, _: np.arange(n), context.columns.n_recorded(steps), steps)
    warnings += notes + still_warnings(data[STATE], context.arms, context.cameras, file)
    warnings += length_warnings(n_steps, context.min_steps, plan.options)
    task, doubts = _instruction(file, trajectory, context, plan.options["language"])
    return Episode(
        trajectory.source_id,
        data,
        images,
        task=task,
        success=True,
        split=trajectory.split,
        segments=[*intervention_segments(file, n_steps)],
        warnings=warnings + doubts,
    )


def _look(trajectories: Sequence[Trajectory], schema: EmbodimentSchema, options: Mapping[str, str]) -> Survey:
    cameras = {name: key for name, (key, _) in choose_cameras(schema, options).items()}
    keys = {part.source for source in schema.features.values() for part in source.parts}
    return survey(trajectories, _FILES_PER_TASK, _facts, cameras, keys, dict(options))


def _facts(path: Path, cameras: Mapping[str, str], keys: set[str], options: Mapping[str, str]) -> FileFacts:
    def rate(file: h5py.File) -> float | None:
        measured = measured_rate(file)
        return measured.rate if measured is not None and measured.uncertainty <= _COARSEST_RATE else None

    def order(file: h5py.File, key: str) -> str:
        return decoded_order(file, key, options)

    return file_facts(path, Probes(cameras, keys, order, rate, find_stream))


def _with_validity(features: dict[str, Feature]) -> dict[str, Feature]:
    if _TACTILE not in features:
        return features
    return features | {_TACTILE_VALID: replace(features[_TACTILE], dtype="bool", units=())}


def _quaternion(
    schema: EmbodimentSchema,
    columns: SchemaColumns,
    arms: tuple[ArmColumns, ...],
    trajectories: Sequence[Trajectory],
    wanted: str,
) -> tuple[str, dict[str, Any]]:
    """Return the order of the recorded quaternions, and how it is known."""
    if wanted != "auto" or END_EFFECTOR not in columns.names:
        return wanted if wanted != "auto" else "xyzw", {}

    order, left_over = quaternion_order(
        schema.robot,
        arms,
        trajectories,
        lambda trajectory: call_isolated(_state_and_pose, trajectory, columns),
    )
    facts = {"known_by": "kinematics" if order else "assumption", "angle_left_over_rad": left_over}
    return order or "xyzw", {"quaternion": facts}


def _state_and_pose(trajectory: Trajectory, columns: SchemaColumns) -> tuple[np.ndarray, np.ndarray]:
    with open_hdf5(trajectory.path) as file:
        data, _ = columns.read(lambda key: read_stream(file, key, columns))
    return data[STATE], data[END_EFFECTOR]


def _in_order(pose: np.ndarray, arms: Sequence[ArmColumns], order: str) -> np.ndarray:
    if order == "xyzw":
        return pose
    pose = pose.copy()
    for arm in arms:
        pose[:, arm.pose] = to_xyzw(pose[:, arm.pose])
    return pose


def _rate_warnings(file: h5py.File, trajectory: Trajectory, context: _Context) -> list[str]:
    """Compare the episode's rate with its task's, which it must not miss by far, and with the store's."""
    if context.rate_is_given:
        return []
    measured = measured_rate(file)
    if measured is None:
        raise EpisodeError(f"{TIMES} does not advance, so the rate is unknown; give it with --option fps=...")
    expected = context.task_rates.get(trajectory.task, context.fps)
    tolerance = max(_RATE_TOLERANCE, measured.uncertainty)
    if abs(measured.rate / expected - 1) > tolerance:
        raise EpisodeError(
            f"{TIMES}: {measured.rate:.1f} Hz, the median of its task is {expected:.1f} Hz, more than "
            f"{tolerance:.0%} away; give one rate with --option fps=... to keep it"
        )
    warnings = []
    if measured.jumps:
        warnings.append(f"{TIMES}: goes backwards {measured.jumps} times; the rate is from the other steps")
    if abs(expected / context.fps - 1) > _RATE_TOLERANCE:
        warnings.append(
            f"{TIMES}: the task runs at {expected:.1f} Hz in a store of {context.fps:g} Hz; "
            "convert it apart with --option tasks=..."
        )
    return warnings


def _instruction(
    file: h5py.File, trajectory: Trajectory, context: _Context, language: str
) -> tuple[str, list[str]]:
    warnings: list[str] = []
    sources = []
    if language in ("auto", "metadata"):
        sources.append(lambda: instruction_in(file))
    if language in ("auto", "description"):
        sources.append(lambda: context.descriptions[trajectory.task])
    for source in sources:
        text, doubt = source()
        warnings += [doubt] if doubt else []
        if text:
            return text, warnings
    return instruction_from_folder(trajectory.task), warnings


def _task_folder(trajectory: Trajectory) -> Path:
    return next(p.parent for p in trajectory.path.absolute().parents if p.name == "success_episodes")
