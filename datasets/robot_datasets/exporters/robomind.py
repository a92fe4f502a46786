"""RoboMIND 1.x: a tree of HDF5 files, one per episode, with the instructions in a table beside it.

::

    h5_<embodiment>/<task>/success_episodes[/train|val]/<episode>/data/trajectory.hdf5
    RoboMIND_v1_2_instr.csv
    language_description_annotation_json/h5_<embodiment>.json

What goes into a file is decided in `robomind_plan`. Beside the tree lies a file that says what every episode was
called in the store; readers of RoboMIND do not look at it, and neither does our importer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.exporters.arm_columns import END_EFFECTOR, position_and_angles
from robot_datasets.exporters.base import Exporter, has_record, write_record
from robot_datasets.exporters.robomind_plan import FORMAT, LAYOUTS, RoboMindPlan, plan_export
from robot_datasets.exporters.robomind_words import annotation, write_annotations, write_table
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX
from robot_datasets.image_codec import encode_frame, sniff_encoding
from robot_datasets.importers.base import Option
from robot_datasets.importers.hdf5_reading import find_dataset, open_hdf5
from robot_datasets.importers.robomind_frames import depth_is_metres
from robot_datasets.store import EpisodeStore
from robot_datasets.store.images import ImageColumn

_GENERATOR = "robot_sim.generate"


class RoboMindTree(Exporter):
    """Writer of RoboMIND 1.x trees."""

    name = FORMAT
    summary = "RoboMIND 1.x: a tree of h5_<embodiment>/<task>/success_episodes/.../trajectory.hdf5"
    options: ClassVar[tuple[Option, ...]] = (
        Option("layout", "auto", "embodiment folder; auto = by robot and cameras", ("auto", *LAYOUTS)),
        Option(
            "cameras",
            "",
            "layout's camera=store's camera, comma-separated; empty = as they are named, or the only one",
        ),
        Option(
            "frames",
            "jpeg",
            "colour as published: JPEG as it is, others encoded at quality 95; keep = PNG stays, without loss",
            ("jpeg", "keep"),
        ),
    )

    def recognises(self, folder: Path) -> bool:
        """Whether it is a tree that was written here; one that was downloaded is never replaced."""
        return has_record(folder, FORMAT)

    def check(self, store: EpisodeStore, options: Mapping[str, str]) -> list[str]:
        """Refuse what the layout cannot hold; list what is lost or made up."""
        return list(plan_export(store, options).losses)

    def write(
        self,
        store: EpisodeStore,
        folder: Path,
        options: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write one file after another, then the words."""
        plan = plan_export(store, options)
        annotations, named = [], {}
        first_camera = next(iter(plan.schema.cameras.values())).source.rpartition("/")[2]
        for episode in range(store.n_episodes):
            task = store.tasks[int(store.episodes["task_index"][episode])]
            split = store.episodes["split"][episode]
            parts = [plan.layout, plan.folders[task], "success_episodes", *([split] if split else [])]
            place = "/".join([*parts, f"{episode:06d}"])
            named[place] = store.episodes["source_id"][episode]
            file = folder / place / "data" / "trajectory.hdf5"
            file.parent.mkdir(parents=True)
            _write_file(file, store, episode, plan, task, options["frames"])
            if segments := store.episodes["segments"][episode]:
                annotations.append(annotation(place, first_camera, task, segments))
            progress(episode + 1, store.n_episodes)
        write_table(folder, plan.folders)
        write_annotations(folder, plan.layout, annotations)
        write_record(folder, FORMAT, {"layout": plan.layout, "fps": store.fps, "episodes": named})


def _write_file(
    path: Path, store: EpisodeStore, episode: int, plan: RoboMindPlan, task: str, frames: str
) -> None:
    import h5py

    start, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
    names = {plan.measured.feature, plan.measured.gripper_feature}
    names |= {END_EFFECTOR} if plan.rotation else set()
    names |= {ACTION} if plan.commanded is not None else set()
    columns = {name: store.column(name)[start:end] for name in names}
    joints = plan.measured.positions(columns)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = str(store.attributes["conversion"].get("importer", "")).startswith(_GENERATOR)
        file.attrs["compress"] = True
        file["language_raw"] = task
        file["puppet/joint_position"] = joints
        file["puppet/end_effector"] = _poses(columns, joints, plan)
        file["master/joint_position"] = _commands(columns, joints, plan)
        for camera, source in plan.cameras.items():
            place = plan.schema.cameras[camera]
            steps = range(start, end)
            _write_frames(file, place.source, _colour(store.images(IMAGE_PREFIX + source), steps, frames))
            if DEPTH_PREFIX + source not in store.features:
                continue
            _write_frames(file, place.depth, _depth(store.images(DEPTH_PREFIX + source), steps))
    _require_millimetres(path, plan, episode)


def _require_millimetres(path: Path, plan: RoboMindPlan, episode: int) -> None:
    """Refuse depth that readers would take for metres by the authors' rule: nothing of it is above 100."""
    with open_hdf5(path) as file:
        for camera, source in plan.cameras.items():
            dataset = find_dataset(file, plan.schema.cameras[camera].depth)
            if dataset is not None and depth_is_metres(dataset):
                raise DatasetError(
                    f"{DEPTH_PREFIX + source} of episode {episode} has nothing beyond 100 mm, which readers of "
                    "RoboMIND take for metres; leave it out with robot-policies drop --feature"
                )


def _poses(columns: Mapping[str, np.ndarray], joints: np.ndarray, plan: RoboMindPlan) -> np.ndarray:
    """Return (T, 6) poses in the arm's base: those of the store, or the flange by forward kinematics."""
    if plan.rotation:
        return position_and_angles(columns[END_EFFECTOR], plan.rotation)
    from scipy.spatial.transform import Rotation

    flange = plan.arm.flange_poses(joints[:, :-1])
    return np.concatenate([flange[:, :3, 3], Rotation.from_matrix(flange[:, :3, :3]).as_euler("xyz")], axis=1)


def _commands(columns: Mapping[str, np.ndarray], joints: np.ndarray, plan: RoboMindPlan) -> np.ndarray:
    """Return (T, n + 1) joints and gripper of the teleoperation device, or what takes its place."""
    if plan.commanded is not None:
        return plan.commanded.positions(columns)
    return np.concatenate([joints[1:], joints[-1:]])


def _write_frames(file: Any, key: str, frames: Iterator[bytes]) -> None:
    import h5py

    encoded = list(frames)
    dataset = file.create_dataset(key, (len(encoded),), dtype=h5py.vlen_dtype(np.uint8))
    for step, frame in enumerate(encoded):
        dataset[step] = np.frombuffer(frame, np.uint8)


def _colour(images: ImageColumn, steps: Sequence[int], how: str) -> Iterator[bytes]:
    """Yield frames whose colours are true: the bytes of the store where that is possible."""
    for step in steps:
        if images.encoding in ("jpeg", "png"):
            frame = bytes(images.encoded(step))
            if how == "keep" or sniff_encoding(frame) == "jpeg":
                yield frame
                continue
        yield encode_frame(images.decode([step])[0], "jpeg" if how == "jpeg" else "png")


def _depth(images: ImageColumn, steps: Sequence[int]) -> Iterator[bytes]:
    """Yield 16-bit PNG frames."""
    for step in steps:
        yield (
            bytes(images.encoded(step))
            if images.encoding == "png"
            else encode_frame(images.decode([step])[0], "png")
        )
