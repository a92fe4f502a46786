"""RoboMIND 1.0, 1.1 and 1.2: one HDF5 file per episode, real robots and the simulated ones.

``puppet/*`` is the robot's measured state, ``master/*`` the teleoperation device, ``observations/{rgb,depth}_images``
the encoded frames. What the path says comes from `robomind_tree`, what the keys mean from the schemas of the format
``robomind``, words from `robomind_language`. See docs/datasets/robomind.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.features import STATE
from robot_datasets.importers.base import EpisodeRef, Option, Plan
from robot_datasets.importers.hdf5_reading import find_dataset, open_hdf5, read_array, read_text
from robot_datasets.importers.robomind2_times import median_rate
from robot_datasets.importers.robomind_clock import (
    ALIGNMENTS,
    CameraClock,
    camera_clock,
    clock_warnings,
    length_warnings_of,
)
from robot_datasets.importers.robomind_importer import RoboMindImporter
from robot_datasets.importers.robomind_language import (
    DIRTY_TASKS,
    Annotation,
    AnnotationKey,
    annotated_segments,
    find_annotations,
    find_instructions,
    instruction_from_folder,
)
from robot_datasets.importers.robomind_pose import CHOICES, RECORDED, PoseModel, pose_model, repaired
from robot_datasets.importers.robomind_quality import END_EFFECTOR, ArmColumns, arms_of
from robot_datasets.importers.robomind_recording import (
    COMMON_OPTIONS,
    camera_dataset,
    choose_embodiment,
    common_choices,
    frames_of,
    length_warnings,
    of_width,
    only_tasks,
    still_warnings,
)
from robot_datasets.importers.robomind_survey import (
    Camera,
    FileFacts,
    Probes,
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
from robot_datasets.resampling import SELECTING
from robot_datasets.schemas import EmbodimentSchema

if TYPE_CHECKING:
    import h5py

_FILES_PER_TASK = 2
_SIM_TIME = "sim_time_seq"
_STATE_SHARE, _FRAME_SHARE = 0.01, 0.3
"""By how much the lengths of simulated arrays may differ: states by two rows of 1436, depth by 223 frames of 1140."""
_IN_FILE_INSTRUCTION = "language_raw"


@dataclass(frozen=True)
class _Context:
    """What reading an episode needs besides the plan's options."""

    columns: SchemaColumns
    cameras: tuple[Camera, ...]
    arms: tuple[ArmColumns, ...]
    min_steps: int
    pose: PoseModel | None
    instructions: Mapping[str, str]
    annotations: Mapping[AnnotationKey, Annotation]
    fps: float

    @property
    def is_simulated(self) -> bool:
        """Whether the arrays of a file run at different rates: those of the simulators, which have no puppet."""
        return not self.columns.schema.features[STATE].parts[0].source.startswith("puppet/")


class RoboMindHdf5(RoboMindImporter):
    """Importer of RoboMIND 1.0, 1.1 and 1.2 trajectories."""

    name = "robomind"
    version = 2
    summary = "RoboMIND 1.0 to 1.2, a tree of .../h5_<embodiment>/<task>/success_episodes/.../trajectory.hdf5"
    release = 1
    options = (
        *COMMON_OPTIONS,
        Option(
            "fps",
            "",
            "rate [Hz]; empty = measured if simulated, else the authors' 30, which no file confirms",
        ),
        Option(
            "instructions", "", "instruction table (.csv); empty = looked for in and above the source; none"
        ),
        Option("annotations", "", "step annotations (folder or .json); empty = looked for likewise; none"),
        Option(
            "dirty_tasks",
            "keep",
            "tasks whose instruction is known to be wrong: warn, or drop",
            ("keep", "drop"),
        ),
        Option(
            "end_effector", RECORDED, "poses as recorded; repair = frozen ones from joints; fk = all", CHOICES
        ),
        Option(
            "tool", "estimate", "tool for repair and fk: estimate, flange, or x,y,z,roll,pitch,yaw [m, rad]"
        ),
        Option("alignment", "span", "simulated: where in time the rows of an array lie", ALIGNMENTS),
        Option("resampling", "nearest", "simulated: which row a step takes", SELECTING),
    )

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the files, and look at two of each task."""
        min_steps = whole_number(options["min_steps"], "min_steps")
        everything = find_trajectories(path, self.release)
        schema, mine = choose_embodiment(path, everything, self.name, options["embodiment"])
        dirty = DIRTY_TASKS if options["dirty_tasks"] == "drop" else {}
        mine, dropped = only_tasks(mine, options["tasks"], dirty)
        columns, cameras, rates, left_out = _look(mine, schema, options)
        features = columns.features(lambda key: 0)
        measured = str(median_rate(rates) if rates else schema.fps)
        fps = positive_rate(options["fps"] or measured, path)
        instructions, table = find_instructions(path, options["instructions"])
        annotations, annotated = find_annotations(path, options["annotations"], mine)
        arms = tuple(arms_of(features))
        context = _Context(columns, cameras, arms, min_steps, None, instructions, annotations, fps)
        model, pose_facts = pose_model(
            schema.robot,
            features[END_EFFECTOR].rotation if END_EFFECTOR in features else "",
            arms,
            options,
            mine,
            lambda trajectory: call_isolated(_state_and_pose, trajectory, context, dict(options)),
        )
        notes = {
            "schema": schema.name,
            "schema_digest": schema.digest,
            "rate": "given" if options["fps"] else "measured" if rates else "assumed",
            "warnings": left_out,
            "tasks_without_instruction": sorted({t.task for t in mine if not instructions.get(t.task)}),
            "annotated_episodes": len(annotations),
        }
        return Plan(
            source=path,
            options=dict(options)
            | common_choices(mine, columns, cameras, fps)
            | {"instructions": table, "annotations": annotated},
            refs=[EpisodeRef(t.source_id, t) for t in mine],
            features=features | {c.feature: c.describe() for c in cameras},
            fps=fps,
            embodiment=schema.robot,
            checksum=tree_checksum(mine),
            image_encodings={c.feature: c.encoding for c in cameras},
            rejected=dropped,
            notes=notes | pose_facts,
            context=replace(context, pose=model),
        )

    def read(self, file: h5py.File, trajectory: Trajectory, plan: Plan) -> Episode:
        """Read one trajectory."""
        return _episode(file, trajectory, plan)


def _episode(file: h5py.File, trajectory: Trajectory, plan: Plan) -> Episode:
    context: _Context = plan.context
    recording = _Recording(file, context, plan.options)
    data, steps = context.columns.read(recording.read)
    n_steps = steps.stop - steps.start
    warnings = recording.warnings()
    pose, faults = repaired(data, context.arms, context.pose) if END_EFFECTOR in data else (None, [])
    if pose is not None:
        data[END_EFFECTOR] = pose
    sources = {c.feature: (c, camera_dataset(file, c), c.stored) for c in context.cameras}
    images, notes = frames_of(sources, recording.rows_of, context.columns.n_recorded(steps), steps)
    warnings += faults + notes + still_warnings(data[STATE], context.arms, context.cameras, file)
    warnings += length_warnings(n_steps, context.min_steps, plan.options)
    segments, skipped = [], []
    annotation = context.annotations.get((trajectory.folder, trajectory.task, trajectory.episode))
    if annotation is not None:
        segments, skipped = annotated_segments(annotation, n_steps)
    task = context.instructions.get(trajectory.task) or read_text(file, _IN_FILE_INSTRUCTION)
    if trajectory.task in DIRTY_TASKS:
        warnings.append(f"task: the instruction is known to be wrong: {DIRTY_TASKS[trajectory.task]}")
    return Episode(
        trajectory.source_id,
        data,
        images,
        task=task or instruction_from_folder(trajectory.task),
        success=True,
        split=trajectory.split,
        segments=[*segments],
        warnings=warnings + skipped,
    )


class _Recording:
    """The arrays of one open file; those of a simulator are brought to the clock of its frames."""

    def __init__(self, file: h5py.File, context: _Context, options: Mapping[str, str]) -> None:
        self._file, self._context, self._options = file, context, options
        self.clock: CameraClock | None = None
        self._lengths: dict[str, int] = {}
        if context.is_simulated:
            reference = camera_dataset(file, context.cameras[0])
            sim_time = find_dataset(file, _SIM_TIME)
            self.clock = camera_clock(
                len(reference), None if sim_time is None else read_array(sim_time), context.fps
            )

    def read(self, key: str) -> np.ndarray:
        """Return (T, ...) numbers, one row per step."""
        dataset = find_dataset(self._file, key)
        if dataset is None:
            raise EpisodeError(f"{key} is missing; expected (T, ...) numbers, copy the file again")
        values = of_width(read_array(dataset), self._context.columns.schema, key)
        self._lengths[key] = len(values)
        return values if self.clock is None else values[self.rows_of(len(values), key)]

    def rows_of(self, n_rows: int, name: str) -> np.ndarray:
        """Return which row of an array belongs to each step."""
        if self.clock is None:
            return np.arange(n_rows)
        return self.clock.rows(n_rows, self._options["alignment"], self._options["resampling"], name)

    def warnings(self) -> list[str]:
        """Say what is odd about the clock and the arrays read so far.

        Raises:
            EpisodeError: An array is so short or long that it cannot cover the same time as the others.
        """
        if self.clock is None:
            return []
        warnings = clock_warnings(self.clock, self._context.fps)
        typical = int(np.median(list(self._lengths.values())))
        warnings += length_warnings_of(self._lengths, typical, _STATE_SHARE)
        frames = {c.key: len(camera_dataset(self._file, c)) for c in self._context.cameras}
        return warnings + length_warnings_of(frames, len(self.clock.times), _FRAME_SHARE)


def _state_and_pose(
    trajectory: Trajectory, context: _Context, options: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    with open_hdf5(trajectory.path) as file:
        data, _ = context.columns.read(_Recording(file, context, options).read)
    return data[STATE], data[END_EFFECTOR]


def _look(
    trajectories: Sequence[Trajectory], schema: EmbodimentSchema, options: Mapping[str, str]
) -> tuple[SchemaColumns, tuple[Camera, ...], list[float], list[str]]:
    """Return what the surveyed files hold: columns, cameras, rates of simulators' clocks [Hz]; and warnings."""
    chosen = choose_cameras(schema, options)
    keys = {part.source for source in schema.features.values() for part in source.parts}
    found = survey(trajectories, _FILES_PER_TASK, _facts, chosen, keys)
    cameras = surveyed_cameras(chosen, found, options, schema.name)
    columns = SchemaColumns.of(schema, options["action"], found.has)
    all_rates = [rate for rates in found.rates.values() for rate in rates]
    return columns, cameras, all_rates, found.left_out(schema, columns.names)


def _facts(path: Path, chosen: Mapping[str, tuple[str, str]], keys: set[str]) -> FileFacts:
    orders = dict(chosen.values())
    first = next(iter(chosen.values()))[0]
    probes = Probes(
        cameras={name: key for name, (key, _) in chosen.items()},
        keys=keys,
        order=lambda _, key: orders[key],
        rate=lambda file: _measured_rate(file, first),
    )
    return file_facts(path, probes)


def _measured_rate(file: h5py.File, camera: str) -> float | None:
    sim_time, frames = find_dataset(file, _SIM_TIME), find_dataset(file, camera)
    if sim_time is None or frames is None or not frames.ndim:
        return None
    clock = camera_clock(len(frames), read_array(sim_time), 1.0)
    return (clock.rate or None) if clock.measured else None
