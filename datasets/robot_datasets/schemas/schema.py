"""What one embodiment's recordings mean: `EmbodimentSchema`, the content of one YAML file.

An importer opens files; a schema says which of their arrays become which feature, in which order, with which
names, units and conventions::

    schema = load_schema("robomind_franka_3rgb")
    schema.feature("observation.state")                  # Feature: shape, names, units, ...
    state = assemble(schema.features["observation.state"].parts, read)        # (T, D)
    action = assemble(schema.actions["puppet_next"].parts, read)              # before its shift
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import Feature


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some components of one source array.

    Attributes:
        source: Key of the array in the source, as the importer's ``read`` takes it.
        columns: First component and one past the last, of the flattened step; empty = all.
        names: One name per component; ``[joint1, ..., joint7]`` is filled in when the file is read.
        units: One unit per component, or one for all; empty = unknown.
        gripper: Polarity of the gripper component, e.g. ``"0=open,1=closed"``; empty if there is none.
    """

    source: str
    columns: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    gripper: str = ""

    @property
    def size(self) -> int:
        """Number of components; 0 if only the source knows."""
        return self.columns[1] - self.columns[0] if self.columns else len(self.names)


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """How one stored feature is made: parts side by side, in this order.

    Attributes:
        parts: At least one.
        dtype: Storage type.
        frame: Frame of reference, as in `Feature`.
        rotation: Rotation convention, as in `Feature`.
        optional: Whether the feature is left out of the store when the source lacks it.
    """

    parts: tuple[Part, ...]
    dtype: str = "float32"
    frame: str = ""
    rotation: str = ""
    optional: bool = False

    @property
    def size(self) -> int:
        """Number of components; 0 if only the source knows (a single part without names and columns)."""
        return sum(part.size for part in self.parts)

    def describe(self, *, meaning: str = "") -> Feature:
        """Return the `Feature`; its shape is (0,) if only the source knows the size."""
        units = [unit for part in self.parts for unit in _units(part)]
        same = len(set(units)) == 1
        return Feature(
            dtype=self.dtype,
            shape=(self.size,),
            names=tuple(name for part in self.parts for name in part.names),
            units=() if not any(units) else tuple(units[:1] if same else units),
            frame=self.frame,
            rotation=self.rotation,
            gripper=next((part.gripper for part in self.parts if part.gripper), ""),
            meaning=meaning,
        )


@dataclass(frozen=True, kw_only=True)
class ActionSource(FeatureSource):
    """How an action is made: a `FeatureSource`, and which step of it belongs to which observation.

    Attributes:
        shift: Action of step t = row t + shift of the parts; the last steps, which have no such row, are left
            out by the importer.
        meaning: What the command is; empty = the name of the choice.
        delta_mask: Which components may be turned into differences from the state (False: a gripper);
            empty = the schema's mask.
    """

    shift: int = 0
    meaning: str = ""
    delta_mask: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CameraSource:
    """Where the frames of one camera are.

    Attributes:
        source: Key of the colour frames in the source.
        depth: Key of the depth frames; empty if there are none.
        channels: What a standards-true decoder returns of the source's frames, ``"rgb"`` or ``"bgr"``; the
            importer swaps the latter. Empty = each file says it.
        optional: Whether recordings without this camera are usable.
    """

    source: str
    depth: str = ""
    channels: str = "rgb"
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbodimentSchema:
    """One embodiment in one source format.

    Attributes:
        robot: Embodiment recorded in the store.
        format: Name of the importer it belongs to.
        labels: What selects it in a source: a folder, a robot type.
        summary: One line.
        named_only: Whether columns alone never say that it is this robot: a label or an option has to.
        fps: Rate [Hz] to assume if the source states none; None if the source states it.
        task: Instruction of every episode, if the source has none.
        cameras: Short name -> where its frames are.
        features: Stored feature -> how it is made; never ``action``.
        actions: Named choices of what the action is.
        default_action: One of `actions`.
        delta_mask: Mask of the default action's components, see `ActionSource`; empty = none may.
        layout: Slot of the shared layout -> component names, see `robot_datasets.shared_layout`.
        notes: Facts a user of the data must know.
        name: Name of the file, without its ending.
        digest: Hash of the file; an importer records it.
    """

    robot: str
    format: str
    labels: tuple[str, ...]
    summary: str
    named_only: bool = False
    fps: float | None = None
    task: str = ""
    cameras: Mapping[str, CameraSource] = field(default_factory=dict)
    features: Mapping[str, FeatureSource]
    actions: Mapping[str, ActionSource]
    default_action: str
    delta_mask: tuple[bool, ...] = ()
    layout: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    name: str = ""
    digest: str = ""

    def feature(self, name: str) -> Feature:
        """Describe one feature; an unknown name is an error with the nearest match."""
        if name not in self.features:
            raise DatasetError(f"schema {self.name}: {unknown_name('feature', name, self.features)}")
        return self.features[name].describe()

    def action_source(self, choice: str = "") -> ActionSource:
        """Return how an action is made; empty = the default; unknown choices are an error."""
        choice = choice or self.default_action
        if choice not in self.actions:
            raise DatasetError(f"schema {self.name}: {unknown_name('action', choice, self.actions)}")
        return self.actions[choice]

    def action(self, choice: str = "") -> Feature:
        """Describe the action of a choice (empty = the default); its meaning is the choice's, or its name."""
        source = self.action_source(choice)
        return source.describe(meaning=source.meaning or choice or self.default_action)

    def mask(self, choice: str = "") -> tuple[bool, ...]:
        """Return which components of an action may be turned into differences from the state."""
        source = self.action_source(choice)
        return source.delta_mask or self.delta_mask or (False,) * source.size


def assemble(parts: Sequence[Part], read: Callable[[str], np.ndarray]) -> np.ndarray:
    """Put the parts of a feature side by side.

    Args:
        parts: The parts, in order.
        read: Source key -> (T, ...) numbers; raises `EpisodeError` if the source lacks it. Called once per
            key; a step of several dimensions is flattened.

    Returns:
        (T, D) array of the common type of all parts.

    Raises:
        EpisodeError: A part has another number of components or steps than expected, or is not numeric.
    """
    arrays: dict[str, np.ndarray] = {}
    taken = []
    for part in parts:
        if part.source not in arrays:
            arrays[part.source] = _rows(part.source, np.asarray(read(part.source)))
        taken.append(_take(part, arrays[part.source]))
    if len({len(rows) for rows in taken}) > 1:
        listed = ", ".join(f"{key} {len(rows)}" for key, rows in arrays.items())
        raise EpisodeError(f"arrays differ in length: {listed}; expected one row per step")
    return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)


def _rows(source: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 0 or values.dtype.kind not in "fiub":
        raise EpisodeError(f"{source} is {values.dtype} of shape {values.shape}, expected (T, D) numbers")
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _take(part: Part, rows: np.ndarray) -> np.ndarray:
    width = rows.shape[1]
    if part.columns:
        first, end = part.columns
        if end > width:
            raise EpisodeError(f"{part.source} has {width} components per step, expected at least {end}")
        return rows[:, first:end]
    if part.names and len(part.names) != width:
        raise EpisodeError(f"{part.source} has {width} components per step, expected {len(part.names)}")
    return rows


def _units(part: Part) -> tuple[str, ...]:
    if len(part.units) > 1 and part.size:
        return part.units
    return (part.units or ("",)) * max(1, part.size)
