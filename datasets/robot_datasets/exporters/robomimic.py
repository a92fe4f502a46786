"""robomimic's HDF5: one file, ``data/demo_<i>`` with observations, actions, rewards and dones, and masks.

Its reader takes every group below ``data`` for a demonstration and every key of ``obs`` for an observation, so what
it has no place for (instructions, success, units, segments) is one JSON text at the file's root.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.exporters.base import Exporter
from robot_datasets.features import ACTION, DEPTH_PREFIX, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE
from robot_datasets.importers.base import Option
from robot_datasets.schemas import load_schema
from robot_datasets.side_record import KEY, Placement, SideRecord
from robot_datasets.store import EpisodeStore

_FRAMES_AT_ONCE = 32
_OBSERVATIONS = "obs/"
_OBSERVATION = "observation."
_NEXT = "next_obs/"
_BESIDE = {ACTION: "actions", "next.reward": "rewards", "next.done": "dones"}
_SIMULATOR_STATE = "observation.simulator_state"
_STATES = "states"
_DEMANDED = ("rewards", "dones")
_GYM_TYPE, _ROBOSUITE_TYPE = 2, 1
_MASKS = {"train": "train", "val": "valid"}


class RobomimicFile(Exporter):
    """Writer of robomimic datasets."""

    name = "robomimic_hdf5"
    summary = "robomimic dataset: an .hdf5 file of data/demo_<i>"
    file_endings: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "next_obs", "copy", "observations of the following step, which double the file", ("copy", "none")
        ),
        Option("compression", "none", "of images; gzip without loss", ("none", "gzip")),
    )

    def recognises(self, folder: Path) -> bool:
        """Whether it is a file with demonstrations."""
        from robot_datasets.importers.robomimic_hdf5 import RobomimicHdf5

        return RobomimicHdf5().probe(folder) is not None

    def check(self, store: EpisodeStore, options: Mapping[str, str]) -> list[str]:
        """Refuse frames of varying size; list what is made up and what only our own importer will find again."""
        for name in store.spec.image_features:
            if 0 in store.features[name].shape:
                raise DatasetError(
                    f"{name} has frames of varying size; a dataset has one, leave the camera out"
                )
        made_up = _made_up(store, _placements(store))
        warnings = ["instructions, success, segments, units are kept in a text that robomimic does not read"]
        if _SIMULATOR_STATE in store.features:
            warnings.append(
                "the MJCF models that belong to the simulator's states were not kept in the store"
            )
        if "rewards" in made_up:
            warnings.append("rewards are made up: 1 in the last step of a successful episode, else 0")
        if "dones" in made_up:
            warnings.append("dones are made up: 1 in the last step")
        if options["next_obs"] == "copy":
            warnings.append("next_obs of a last step repeats that step, the one after it was not recorded")
        return warnings

    def write(
        self,
        store: EpisodeStore,
        folder: Path,
        options: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write one demonstration after another."""
        import h5py

        placements = _placements(store)
        made_up = _made_up(store, placements)
        record = SideRecord.of(store, placements, made_up)
        with h5py.File(folder, "w") as root:
            data = root.create_group("data")
            data.attrs["total"] = store.n_steps
            data.attrs["env_args"] = json.dumps(_environment(store), sort_keys=True)
            for episode in range(store.n_episodes):
                demo = data.create_group(f"demo_{episode}")
                _write_demo(demo, store, episode, placements, made_up, options)
                progress(episode + 1, store.n_episodes)
            for split, mask in _MASKS.items():
                names = [f"demo_{e}" for e, s in enumerate(store.episodes["split"]) if s == split]
                if names:
                    root.create_dataset(f"mask/{mask}", data=np.array(names, dtype="S"))
            root.create_dataset(KEY, data=json.dumps(record.to_dict(), sort_keys=True, ensure_ascii=False))


def _placements(store: EpisodeStore) -> dict[str, Placement]:
    """Return where every feature goes within a demonstration."""
    places = {name: Placement(_arrays(store, name)) for name in store.features}
    taken: dict[str, str] = {}
    for name, place in places.items():
        for array in place.arrays:
            if taken.setdefault(array, name) != name:
                raise DatasetError(f"{taken[array]} and {name} would both become {array}; rename one of them")
    return places


def _arrays(store: EpisodeStore, name: str) -> tuple[str, ...]:
    if name in _BESIDE:
        return (_BESIDE[name],)
    if name == _SIMULATOR_STATE:
        return (_STATES,)
    if name.startswith(IMAGE_PREFIX):
        return (f"{_OBSERVATIONS}{name.removeprefix(IMAGE_PREFIX)}_image",)
    if name.startswith(DEPTH_PREFIX):
        return (f"{_OBSERVATIONS}{name.removeprefix(DEPTH_PREFIX)}_depth",)
    if name == ENVIRONMENT_STATE:
        return (_OBSERVATIONS + "object",)
    schema = load_schema("robosuite")
    if name == STATE and store.features[name].names == schema.feature(STATE).names:
        return tuple(_OBSERVATIONS + part.source for part in schema.features[STATE].parts)
    if name.startswith(_OBSERVATION):
        return (_OBSERVATIONS + name.removeprefix(_OBSERVATION),)
    return (name,)


def _made_up(store: EpisodeStore, placements: Mapping[str, Placement]) -> list[str]:
    there = {array for place in placements.values() for array in place.arrays}
    if _STATES not in there and not any(array.startswith(_OBSERVATIONS) for array in there):
        raise DatasetError(f"{store.path} has no observations; robomimic needs at least one")
    return [array for array in _DEMANDED if array not in there]


def _write_demo(
    demo: Any,
    store: EpisodeStore,
    episode: int,
    placements: Mapping[str, Placement],
    made_up: list[str],
    options: Mapping[str, str],
) -> None:
    start, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
    demo.attrs["num_samples"] = end - start
    for name, place in placements.items():
        if name in store.spec.image_features:
            _write_frames(demo, store, name, place.arrays[0], range(start, end), options)
            continue
        rows = store.column(name)[start:end]
        sizes = _sizes(place.arrays)
        for array, part in zip(place.arrays, np.split(rows, np.cumsum(sizes)[:-1], axis=1), strict=True):
            values = part[:, 0] if array in _DEMANDED and part.shape[1:] == (1,) else part
            _write_numbers(demo, array, values, options)
    last = np.arange(start, end) == end - 1
    success = int(store.episodes["success"][episode]) == 1
    if "rewards" in made_up:
        demo.create_dataset("rewards", data=(last & success).astype(np.float32))
    if "dones" in made_up:
        demo.create_dataset("dones", data=last.astype(np.int64))


def _sizes(arrays: tuple[str, ...]) -> list[int]:
    """Return the components of each of the arrays of a feature that is divided among several."""
    if len(arrays) == 1:
        return [0]
    parts = load_schema("robosuite").features[STATE].parts
    return [part.size for part in parts]


def _write_numbers(demo: Any, array: str, values: np.ndarray, options: Mapping[str, str]) -> None:
    demo.create_dataset(array, data=values)
    if array.startswith(_OBSERVATIONS) and options["next_obs"] == "copy":
        following = np.concatenate([values[1:], values[-1:]])
        demo.create_dataset(_NEXT + array.removeprefix(_OBSERVATIONS), data=following)


def _write_frames(
    demo: Any, store: EpisodeStore, name: str, array: str, steps: range, options: Mapping[str, str]
) -> None:
    """Write a camera's frames, a few decoded at a time, and the same one step ahead."""
    feature, images = store.features[name], store.images(name)
    copies = [array]
    if options["next_obs"] == "copy":
        copies.append(_NEXT + array.removeprefix(_OBSERVATIONS))
    compression = None if options["compression"] == "none" else options["compression"]
    datasets = [
        demo.create_dataset(
            key,
            shape=(len(steps), *feature.shape),
            dtype=feature.dtype,
            chunks=(1, *feature.shape),
            compression=compression,
        )
        for key in copies
    ]
    for first in range(0, len(steps), _FRAMES_AT_ONCE):
        rows = images.decode(np.asarray(steps[first : first + _FRAMES_AT_ONCE]))
        datasets[0][first : first + len(rows)] = rows
        for following in datasets[1:]:
            skipped = 1 if first == 0 else 0
            following[first - 1 + skipped : first - 1 + len(rows)] = rows[skipped:]
            if first + len(rows) == len(steps):
                following[len(steps) - 1] = rows[-1]


def _environment(store: EpisodeStore) -> dict[str, Any]:
    """Return what robomimic builds an environment from: the recorded arguments if there are any, and the rate."""
    recorded = store.attributes["source"].get("environment")
    arguments = dict(recorded) if isinstance(recorded, Mapping) else {}
    name = str(arguments.pop("env_name", "") or store.embodiment or "unknown")
    kind = _ROBOSUITE_TYPE if "controller_configs" in arguments or "robots" in arguments else _GYM_TYPE
    return {"env_name": name, "type": kind, "env_kwargs": {"control_freq": store.fps} | arguments}
