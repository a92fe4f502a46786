"""One open RoboMIND 2.0 file: streams, colour flags, rate, words, interventions; each `EpisodeError` names the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError, Segment
from robot_datasets.importers.hdf5_reading import DAMAGE, find_dataset, read_array, read_text
from robot_datasets.importers.robomind2_times import FrameRate, frame_rate, interventions
from robot_datasets.importers.robomind_recording import of_width
from robot_datasets.importers.schema_columns import SchemaColumns

if TYPE_CHECKING:
    import h5py

TIMES = "camera_observations/timestamp"
_INTERVENTION = "camera_observations/is_intervene"
_INSTRUCTION = "metadata/language_instruction"
_CHANNELS = "camera_color_channel"
_DECODED_ORDER = {"rgb": "bgr", "bgr": "rgb"}
"""What a file's flag means for a standards-true decoder: the flag is of the array that OpenCV returns."""


def find_stream(file: h5py.File, key: str) -> Any:
    """Return a stream's dataset; newer exports keep some as a dataset instead of a group with ``data``."""
    dataset = find_dataset(file, key)
    return find_dataset(file, key.removesuffix("/data")) if dataset is None else dataset


def read_stream(file: h5py.File, key: str, columns: SchemaColumns) -> np.ndarray:
    """Return a stream's numbers (T, ...).

    Raises:
        EpisodeError: It is missing; if only an optional feature needs it, the message says how to do without.
    """
    dataset = find_stream(file, key)
    if dataset is not None and dataset.size:
        return of_width(read_array(dataset), columns.schema, key)
    features = [columns.schema.features[name] for name in columns.names]
    optional = any(feature.optional and part.source == key for feature in features for part in feature.parts)
    raw = key.replace("_align", "_raw")
    only_raw = raw != key and find_dataset(file, raw) is not None
    found = f", there is only {raw}, which has a clock of its own" if only_raw else ""
    remedy = "; convert without it: --option optional=drop" if optional else ""
    state = "missing" if dataset is None else "empty"
    raise EpisodeError(f"{key} is {state}{found}; expected (T, ...) numbers{remedy}")


def is_skeleton(file: h5py.File) -> bool:
    """Whether there is not one dataset at any depth, as in 4,500 files of the release."""
    import h5py

    def dataset(_: str, node: Any) -> bool | None:
        return True if isinstance(node, h5py.Dataset) else None

    try:
        return file.visititems(dataset) is None
    except DAMAGE as error:
        raise EpisodeError(f"the groups of the file cannot be listed: {error}; copy it again") from error


def decoded_order(file: h5py.File, camera: str, options: Mapping[str, str]) -> str:
    """Return what a standards-true decoder makes of a camera's colour frames, ``"rgb"`` or ``"bgr"``."""
    name = f"{_CHANNELS}/{camera.rpartition('/')[2]}"
    flag = options["colour_order"] or read_text(file, name).lower()
    if flag not in _DECODED_ORDER:
        raise EpisodeError(f"{name} is '{flag}', expected rgb or bgr; say it with --option colour_order=...")
    return _DECODED_ORDER[flag]


def measured_rate(file: h5py.File) -> FrameRate | None:
    """Return the rate of the camera frames, None if their times do not tell it."""
    stamps = find_dataset(file, TIMES)
    return None if stamps is None else frame_rate(read_array(stamps))


def instruction_in(file: h5py.File) -> tuple[str, str]:
    """Return the instruction in the file, and what is wrong with it; both may be empty."""
    try:
        return read_text(file, _INSTRUCTION), ""
    except EpisodeError as error:
        return "", f"task: {error}; left out"


def intervention_segments(file: h5py.File, n_steps: int) -> list[Segment]:
    """Return the stretches of the first `n_steps` in which a human took over."""
    flags = find_dataset(file, _INTERVENTION)
    return [] if flags is None else interventions(read_array(flags), n_steps)
