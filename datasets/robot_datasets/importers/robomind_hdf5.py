"""RoboMIND 1.x HDF5 trajectories, Franka layouts (h5_franka_1rgb, h5_franka_3rgb).

One file is one episode: ``puppet/*`` is the robot's measured state, ``master/*`` the teleoperation device,
``observations/{rgb,depth}_images/<camera>`` the encoded frames. Everything the path says comes from
`robomind_tree`, everything the keys mean from `robot_datasets.schemas.robomind`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX, Feature
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.robomind_frames import depth_is_metres, measure_frame, stream_frames
from robot_datasets.importers.robomind_tree import (
    Trajectory,
    find_trajectories,
    has_trajectory,
    read_instructions,
    tree_checksum,
)
from robot_datasets.schemas.robomind import ACTION_SEMANTICS, FPS, SCHEMAS, RoboMindSchema, schema

if TYPE_CHECKING:
    import h5py

_GROUPS = {IMAGE_PREFIX: "observations/rgb_images", DEPTH_PREFIX: "observations/depth_images"}


@dataclass(frozen=True)
class _Context:
    """What reading an episode needs: schema folder, image feature -> HDF5 key, task folder -> instruction."""

    folder: str
    frames: Mapping[str, str]
    instructions: Mapping[str, str]


class RoboMindHdf5(Importer):
    """Importer of RoboMIND 1.0, 1.1 and 1.2 trajectories."""

    name = "robomind_hdf5"
    version = 1
    summary = "RoboMIND 1.x tree of .../<embodiment>/<task>/success_episodes/.../trajectory.hdf5 (Franka)"
    options = (
        Option(
            "embodiment", "", "embodiment folder, needed if the tree holds several", ("", *sorted(SCHEMAS))
        ),
        Option("action", "", "what an action is; empty = the embodiment's default", ("", *ACTION_SEMANTICS)),
        Option("cameras", "", "colour cameras, comma-separated; empty = all of the embodiment"),
        Option("depth", "keep", "keep depth images, or drop them", ("keep", "drop")),
        Option("fps", f"{FPS:g}", "rate [Hz]; the files have no timestamps"),
        Option("instructions", "", "RoboMIND_v1_2_instr.csv; without it the task is its folder's name"),
    )

    def probe(self, path: Path) -> Probe | None:
        """Look for a trajectory file below a ``success_episodes`` folder."""
        found = has_trajectory(path)
        return Probe(self.name, str(found)) if found else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the files; of each task, open the first that can be opened, to measure its frames."""
        trajectories = find_trajectories(path)
        if not trajectories:
            raise DatasetError(
                f"{path} holds no <embodiment>/<task>/success_episodes/.../trajectory.hdf5; check the path"
            )
        chosen = _choose_schema(path, {t.folder for t in trajectories}, options["embodiment"])
        mine = [t for t in trajectories if t.folder == chosen.folder]
        semantics = options["action"] or chosen.action_default
        frames, sizes = _measure(mine, chosen, options)
        features = {name: feature for name, (_, feature) in chosen.observation.items()}
        features[ACTION] = replace(chosen.action, meaning=semantics)
        features |= sizes
        instructions, recorded = _instructions(options["instructions"])
        cameras = [key.rpartition("/")[2] for name, key in frames.items() if name.startswith(IMAGE_PREFIX)]
        resolved = {
            "embodiment": chosen.folder,
            "action": semantics,
            "cameras": ",".join(cameras),
            "instructions": recorded,
        }
        return Plan(
            source=path,
            options=dict(options) | resolved,
            refs=[EpisodeRef(t.source_id, t) for t in mine],
            features=features,
            fps=_rate(options["fps"]),
            embodiment=chosen.embodiment,
            checksum=tree_checksum(mine),
            image_encodings={n: "jpeg" if n.startswith(IMAGE_PREFIX) else "png" for n in frames},
            notes={"tasks_without_instruction": sorted({t.task for t in mine} - set(instructions))},
            context=_Context(chosen.folder, frames, instructions),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Open one file after another; an unreadable one is rejected with its reason."""
        import h5py

        for ref in refs:
            try:
                file = h5py.File(ref.locator.path, "r")
            except OSError as error:
                yield Rejected(ref.source_id, f"the file is truncated or not HDF5: {error}")
                continue
            with file:
                try:
                    episode = _episode(file, ref.locator, plan)
                except EpisodeError as error:
                    yield Rejected(ref.source_id, str(error))
                else:
                    yield episode


def _episode(file: h5py.File, trajectory: Trajectory, plan: Plan) -> Episode:
    context: _Context = plan.context
    chosen = schema(context.folder)
    data = {name: _array(file, key, feature) for name, (key, feature) in chosen.observation.items()}
    semantics = plan.options["action"]
    action_key = chosen.master_action if semantics == "master" else chosen.puppet_action
    action = _array(file, action_key, chosen.action)
    datasets = {name: _frame_dataset(file, key) for name, key in context.frames.items()}
    lengths = {name: len(values) for name, values in (data | {ACTION: action} | datasets).items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name}={n}" for name, n in lengths.items())
        raise EpisodeError(f"arrays differ in length: {listed}; expected one row per step")
    for name, dataset in datasets.items():
        if name.startswith(DEPTH_PREFIX) and depth_is_metres(dataset):
            raise EpisodeError(
                f"{name} is in metres by RoboMIND's rule (largest value <= 100), expected mm; use depth=drop"
            )
    n_steps = len(action)
    if semantics == "puppet_next":  # the last step has no next state, so it is left out
        n_steps -= 1
        action = action[1:]
    if n_steps < 1:
        raise EpisodeError(f"{len(action)} usable steps with action={semantics}; expected at least one")
    images = {
        name: stream_frames(dataset, n_steps, depth=name.startswith(DEPTH_PREFIX), swap_raw=chosen.rgb_as_is)
        for name, dataset in datasets.items()
    }
    return Episode(
        trajectory.source_id,
        {name: values[:n_steps] for name, values in (data | {ACTION: action}).items()},
        dict(images),
        task=context.instructions.get(trajectory.task, trajectory.task),
        success=True,
        split=trajectory.split,
    )


def _array(file: h5py.File, key: str, feature: Feature) -> np.ndarray:
    import h5py

    node = file.get(key)
    if not isinstance(node, h5py.Dataset):
        raise EpisodeError(f"{key} is missing; expected (T, {feature.shape[0]}) numbers")
    if node.shape[1:] != feature.shape:
        raise EpisodeError(f"{key} has shape {node.shape}, expected (T, {feature.shape[0]})")
    try:
        return node[...]
    except (OSError, RuntimeError) as error:
        raise EpisodeError(f"{key} cannot be read, the file is truncated: {error}") from error


def _frame_dataset(file: h5py.File, key: str) -> Any:
    import h5py

    node = file.get(key)
    if isinstance(node, h5py.Dataset):
        return node
    group, _, camera = key.rpartition("/")
    parent = file.get(group)
    found = sorted(parent) if isinstance(parent, h5py.Group) else []
    raise EpisodeError(
        f"{group} has {', '.join(found) or 'no cameras'}, expected {camera}; convert such episodes apart "
        "with --option cameras=... or depth=drop"
    )


def _choose_schema(path: Path, folders: set[str], wanted: str) -> RoboMindSchema:
    if wanted:
        if wanted not in folders:
            raise DatasetError(
                f"{path} holds {', '.join(sorted(folders))}, not {wanted}; choose another embodiment"
            )
        return schema(wanted)
    known = sorted(folders & set(SCHEMAS))
    if len(known) == 1 and folders == set(known):
        return schema(known[0])
    if known:
        raise DatasetError(
            f"{path} holds several embodiments ({', '.join(sorted(folders))}); a store has one, "
            f"choose with --option embodiment={known[0]}"
        )
    raise DatasetError(
        f"{path} holds {', '.join(sorted(folders))}; this importer reads {', '.join(sorted(SCHEMAS))} so far"
    )


def _cameras(chosen: RoboMindSchema, options: Mapping[str, str]) -> list[str]:
    names = [name.strip() for name in options["cameras"].split(",") if name.strip()]
    return names or list(chosen.cameras)


def _measure(
    trajectories: Sequence[Trajectory], chosen: RoboMindSchema, options: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Feature]]:
    """Return image feature -> HDF5 key, and the features; a size that varies between tasks is 0."""
    wanted = {IMAGE_PREFIX + _short(c): f"{_GROUPS[IMAGE_PREFIX]}/{c}" for c in _cameras(chosen, options)}
    if options["depth"] == "keep":
        wanted |= {
            DEPTH_PREFIX + _short(c): f"{_GROUPS[DEPTH_PREFIX]}/{c}" for c in _cameras(chosen, options)
        }
    sizes: dict[str, set[tuple[int, int]]] = {name: set() for name in wanted}
    by_task: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        by_task.setdefault(trajectory.task, []).append(trajectory)
    reasons: list[str] = []
    for candidates in by_task.values():
        measured = next(filter(None, (_measure_file(t, wanted, chosen, reasons) for t in candidates)), None)
        for name, size in (measured or {}).items():
            sizes[name].add(size)
    absent = [name for name, found in sizes.items() if not found and name.startswith(IMAGE_PREFIX)]
    sizes = {name: found for name, found in sizes.items() if found}
    if absent and (options["cameras"] or len(absent) == len(_cameras(chosen, options))):
        detail = f"; the first that failed, {reasons[0]}" if reasons else ""
        raise DatasetError(f"no file of {chosen.folder} has readable frames of {', '.join(absent)}{detail}")
    features = {
        name: Feature(
            dtype="uint8" if name.startswith(IMAGE_PREFIX) else "uint16",
            shape=(
                *(next(iter(found)) if len(found) == 1 else (0, 0)),
                3 if name.startswith(IMAGE_PREFIX) else 1,
            ),
            units=() if name.startswith(IMAGE_PREFIX) else ("mm",),
        )
        for name, found in sizes.items()
    }
    return {name: wanted[name] for name in sizes}, features


def _measure_file(
    trajectory: Trajectory, wanted: Mapping[str, str], chosen: RoboMindSchema, reasons: list[str]
) -> dict[str, tuple[int, int]] | None:
    """Return the sizes of those cameras the file has, or None (and a reason) if it cannot be used."""
    import h5py

    sizes = {}
    try:
        with h5py.File(trajectory.path, "r") as file:
            for name, key in wanted.items():
                if isinstance(file.get(key), h5py.Dataset):
                    depth = name.startswith(DEPTH_PREFIX)
                    sizes[name] = measure_frame(file[key], depth=depth, swap_raw=chosen.rgb_as_is)
    except (OSError, DatasetError) as error:
        reasons.append(f"{trajectory.source_id}: {error}")
        return None
    return sizes or None


def _short(camera: str) -> str:
    return camera.removeprefix("camera_")


def _instructions(option: str) -> tuple[dict[str, str], str]:
    if not option:
        return {}, ""
    path = Path(option)
    table = read_instructions(path)
    return table, "blake2b:" + hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not rate > 0:
        raise DatasetError(f"fps is '{text}'; expected a positive number [Hz], for example --option fps=30")
    return rate
