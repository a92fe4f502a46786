"""The topic map: a YAML file that says which topics of a bag become which features, and how they meet on one clock.

Every key is explained in docs/datasets/rosbag2.md. An unknown one is an error with the nearest match.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, DEPTH_PREFIX, DTYPES, IMAGE_PREFIX, Feature, is_image
from robot_datasets.importers.rosbag2_kinematics import MapKinematics
from robot_datasets.mapping import ConfigError, from_mapping
from robot_datasets.resampling import LATEST_BEFORE, POLICIES, SELECTING, SLERP
from robot_datasets.schemas.reading import full_part, read_yaml
from robot_datasets.schemas.schema import FeatureSource, Part

TIMES = ("header", "log")
PER_BAG, BY_MARKER, BY_RANGE = "bag", "marker", "range"


@dataclass(frozen=True, kw_only=True)
class MapPart:
    """Some components of a feature, from one field of one topic.

    Attributes:
        topic: Name of the topic.
        field: Path of the field, e.g. ``position`` or ``pose.orientation``; empty = the whole message.
        joints: Names by which the message lists its numbers; they are taken in this order.
        columns: First number and one past the last; empty = all.
        names: Names of the components; empty = `joints`, or those of the message's fields.
        units: One unit per component, or one for all.
        gripper: Polarity, if one of them is a gripper.
        policy: How it is brought to the clock, see `robot_datasets.resampling`.
        max_age: Largest age of a sample [s].
        time: ``"header"`` or ``"log"``; empty = the map's.
        latency: How long after the event the sensor stamps it [s]; subtracted from every time.
        kinematics: Take the tool's place that `joints` lead to, message by message, instead of the joints.
    """

    topic: str
    field: str = ""
    joints: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    gripper: str = ""
    policy: str = LATEST_BEFORE
    max_age: float = 0.1
    time: str = ""
    latency: float = 0.0
    kinematics: MapKinematics | None = None

    def as_part(self, size: int, found: tuple[str, ...]) -> Part:
        """Describe the components, of which a message has `size`, called `found` in it."""
        if self.kinematics is not None:
            size, found = 3, ("x", "y", "z")
            return Part(
                source=self.topic,
                columns=(0, size),
                names=self.names or found,
                units=self.units or ("m",) * 3,
            )
        columns = self.columns or (0, size)
        names = self.names or self.joints or found[columns[0] : columns[1]]
        return Part(source=self.topic, columns=columns, names=names, units=self.units, gripper=self.gripper)


@dataclass(frozen=True, kw_only=True)
class MapFeature:
    """A feature: parts side by side.

    Attributes:
        parts: At least one.
        dtype: Storage type.
        frame: Frame of reference, as in `Feature`.
        rotation: Rotation convention, as in `Feature`; ROS quaternions are ``quat_xyzw``.
    """

    parts: tuple[MapPart, ...]
    dtype: str = "float32"
    frame: str = ""
    rotation: str = ""

    def describe(self, parts: tuple[Part, ...], *, meaning: str = "") -> Feature:
        """Return the `Feature` made of described parts."""
        named = all(part.names for part in parts)
        parts = parts if named else tuple(dataclasses.replace(part, names=()) for part in parts)
        source = FeatureSource(parts=parts, dtype=self.dtype, frame=self.frame, rotation=self.rotation)
        return source.describe(meaning=meaning)


@dataclass(frozen=True, kw_only=True)
class MapAction(MapFeature):
    """The action: a command's topics, or the next value of a feature.

    Attributes:
        parts: Topics of the command; empty if `next_of` is given.
        next_of: Feature whose value one step later is the action; the last step is left out.
        shift: Action of step t = command at step t + shift; 0 = at the time of the observation.
        meaning: What the command is, e.g. ``absolute position``.
    """

    parts: tuple[MapPart, ...] = ()
    next_of: str = ""
    shift: int = 0
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class MapCamera:
    """A camera.

    Attributes:
        topic: Name of the topic, of ``sensor_msgs/CompressedImage`` or ``Image``.
        depth: Whether it is depth.
        policy: ``nearest`` or ``latest_before``.
        max_age: Largest age of a frame [s].
        time: ``"header"`` or ``"log"``; empty = the map's.
        latency: How long after the event the camera stamps it [s]; subtracted from every time.
    """

    topic: str
    depth: bool = False
    policy: str = LATEST_BEFORE
    max_age: float = 0.2
    time: str = ""
    latency: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MapClock:
    """The steps of an episode: a fixed rate, or the messages of a topic.

    Attributes:
        rate: Steps per second [Hz]; with `topic`, the rate to record, measured if left out.
        topic: Topic whose messages are the steps; empty for a fixed rate.
    """

    rate: float | None = None
    topic: str = ""


@dataclass(frozen=True, kw_only=True)
class MapText:
    """A text in a message, such as the instruction."""

    topic: str
    field: str = "data"


@dataclass(frozen=True, kw_only=True)
class MapSegments:
    """Where a bag says what kind of steps these are, such as who moved the robot.

    Attributes:
        topic: Each of its messages begins a stretch that lasts until the next one.
        field: The stretch's tag, a text; nothing is labelled while it is empty.
        time: ``"header"`` or ``"log"``; empty = the map's.
    """

    topic: str
    field: str = "data"
    time: str = ""


@dataclass(frozen=True, kw_only=True)
class MapEpisodes:
    """Where episodes begin and end.

    Attributes:
        per: ``"bag"``, ``"marker"`` or ``"range"``.
        topic: Marker topic.
        field: Its field; flags are the texts ``true`` and ``false``.
        start: Values that begin an episode.
        stop: Values that end it.
        success: Values among `stop` that say it reached its goal.
        failure: Values among `stop` that say it did not.
        ranges: Name of a bag -> [start, end] pairs, in seconds from the bag's first message.
    """

    per: str = PER_BAG
    topic: str = ""
    field: str = "data"
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    success: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[tuple[float, ...], ...]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BagMap:
    """What the topics of a set of bags mean.

    Attributes:
        robot: Robot name.
        clock: The steps.
        time: Which times count: ``"header"`` = the messages' own stamps, ``"log"`` = when the recorder got them.
        features: Stored feature -> its parts.
        action: The action.
        cameras: Short name -> camera.
        episodes: Where episodes begin and end.
        task: Instruction of all episodes.
        task_from: Where the bag tells the instruction.
        segments_from: Where it tells the tags of segments.
    """

    robot: str
    clock: MapClock
    features: Mapping[str, MapFeature]
    action: MapAction
    cameras: Mapping[str, MapCamera] = dataclasses.field(default_factory=dict)
    time: str = "log"
    episodes: MapEpisodes = dataclasses.field(default_factory=MapEpisodes)
    task: str = ""
    task_from: MapText | None = None
    segments_from: MapSegments | None = None

    def image_name(self, camera: str) -> str:
        """Return the feature of a camera."""
        return (DEPTH_PREFIX if self.cameras[camera].depth else IMAGE_PREFIX) + camera

    def parts(self) -> list[MapPart]:
        """Return all parts of features and of the action, in order."""
        return [*(p for f in self.features.values() for p in f.parts), *self.action.parts]

    def topics(self) -> list[str]:
        """Return every topic that an episode is made of."""
        named = [part.topic for part in self.parts()] + [camera.topic for camera in self.cameras.values()]
        return list(dict.fromkeys([*named, *([self.clock.topic] if self.clock.topic else [])]))


def read_map(path: Path) -> tuple[BagMap, str]:
    """Read a topic map.

    Returns:
        The map, and its name and hash for the record.

    Raises:
        DatasetError: It cannot be read, or a key is unknown, missing, or contradicts another.
    """
    values = read_yaml(path)
    where = path.name
    try:
        found = from_mapping(BagMap, _written_out(values, where), where=f"{where}:")
    except ConfigError as error:
        raise DatasetError(str(error)) from error
    _check(found, where)
    return found, f"{path.stem} blake2b:{hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}"


def _written_out(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Write out the short forms within parts, as in schemas."""
    full = dict(values)
    features = values.get("features")
    if isinstance(features, Mapping):
        full["features"] = {n: _full_parts(f, f"{where}: features.{n}") for n, f in features.items()}
    if isinstance(values.get("action"), Mapping):
        full["action"] = _full_parts(values["action"], f"{where}: action")
    if isinstance(values.get("episodes"), Mapping):
        full["episodes"] = {key: _texts(key, value) for key, value in values["episodes"].items()}
    return full


def _texts(key: str, value: Any) -> Any:
    """Let values of a marker be written as what they are: ``start: [true]``, ``stop: 3``."""
    if key not in ("start", "stop", "success", "failure"):
        return value
    values = value if isinstance(value, list) else [value]
    return [str(v).lower() if isinstance(v, bool) else str(v) for v in values]


def _full_parts(entry: Any, where: str) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("parts"), list):
        return entry
    parts = [full_part(part, where) for part in entry["parts"]]
    for part in parts:
        if isinstance(part, dict) and "joints" in part:
            part["joints"] = full_part({"names": part["joints"]}, where)["names"]
    return {**entry, "parts": parts}


def _check(found: BagMap, where: str) -> None:
    _check_clock(found, where)
    if not found.features:
        raise DatasetError(f"{where}: features: empty; expected at least one")
    for name, feature in found.features.items():
        if name == ACTION or is_image(name) or "/" in name or name.startswith((".", "__")):
            raise DatasetError(f"{where}: features.{name}: 'action' and 'cameras' are sections of their own")
        _check_feature(feature, f"{where}: features.{name}")
    action = found.action
    if bool(action.parts) == bool(action.next_of):
        raise DatasetError(f"{where}: action: give either parts (a command's topics) or next_of (a feature)")
    if action.next_of and action.next_of not in found.features:
        raise DatasetError(
            f"{where}: action.next_of: {unknown_name('feature', action.next_of, found.features)}"
        )
    if action.parts:
        _check_feature(action, f"{where}: action")
    for name, camera in found.cameras.items():
        _check_stream(camera.policy, camera.max_age, camera.time, camera.latency, f"{where}: cameras.{name}")
        if camera.policy not in SELECTING:
            raise DatasetError(
                f"{where}: cameras.{name}.policy: frames are taken as they are, by {SELECTING}"
            )
    if found.segments_from is not None and found.segments_from.time not in ("", *TIMES):
        raise DatasetError(
            f"{where}: segments_from.time: {unknown_name('time', found.segments_from.time, TIMES)}"
        )
    if found.time not in TIMES:
        raise DatasetError(f"{where}: time: {unknown_name('time', found.time, TIMES)}")
    _check_episodes(found.episodes, f"{where}: episodes")


def _check_clock(found: BagMap, where: str) -> None:
    clock = found.clock
    if clock.rate is None and not clock.topic:
        raise DatasetError(f"{where}: clock: give rate [Hz], or the topic whose messages are the steps")
    if clock.rate is not None and not 0 < clock.rate < float("inf"):
        raise DatasetError(f"{where}: clock.rate: {clock.rate:g}; expected a positive rate [Hz]")


def _check_feature(feature: MapFeature, where: str) -> None:
    if not feature.parts:
        raise DatasetError(f"{where}.parts: empty; expected at least one topic")
    if feature.dtype not in DTYPES:
        raise DatasetError(f"{where}.dtype: {unknown_name('type', feature.dtype, DTYPES)}")
    for i, part in enumerate(feature.parts):
        place = f"{where}.parts[{i}]"
        _check_stream(part.policy, part.max_age, part.time, part.latency, place)
        if part.columns and (len(part.columns) != 2 or not 0 <= part.columns[0] < part.columns[1]):
            raise DatasetError(f"{place}.columns: {list(part.columns)}; expected [first, one past the last]")
        if part.joints and part.columns:
            raise DatasetError(f"{place}: joints already choose the numbers; leave columns out")
        size = len(part.joints) or (part.columns[1] - part.columns[0] if part.columns else 0)
        if part.kinematics is not None:
            part.kinematics.check(len(part.joints), place)
            size = 3
        if size and part.names and len(part.names) != size:
            raise DatasetError(f"{place}.names: {len(part.names)} names for {size} numbers")
        if part.policy == SLERP and size not in (0, 4):
            raise DatasetError(f"{place}.policy: slerp takes the 4 numbers of a quaternion, not {size}")


def _check_stream(policy: str, max_age: float, time: str, latency: float, where: str) -> None:
    if policy not in POLICIES:
        raise DatasetError(f"{where}.policy: {unknown_name('policy', policy, POLICIES)}")
    if not max_age >= 0:
        raise DatasetError(f"{where}.max_age: {max_age:g}; expected seconds")
    if not 0 <= latency < 10:
        raise DatasetError(f"{where}.latency: {latency:g}; expected 0 to 10 seconds")
    if time not in ("", *TIMES):
        raise DatasetError(f"{where}.time: {unknown_name('time', time, TIMES)}")


def _check_episodes(episodes: MapEpisodes, where: str) -> None:
    kinds = (PER_BAG, BY_MARKER, BY_RANGE)
    if episodes.per not in kinds:
        raise DatasetError(f"{where}.per: {unknown_name('rule', episodes.per, kinds)}")
    if episodes.per == BY_MARKER and not (episodes.topic and episodes.start and episodes.stop):
        raise DatasetError(f"{where}: per: marker needs topic, start and stop")
    if set(episodes.start) & set(episodes.stop):
        raise DatasetError(f"{where}: a value both starts and stops an episode; give different ones")
    for value in (*episodes.success, *episodes.failure):
        if value not in episodes.stop:
            raise DatasetError(f"{where}: '{value}' says how an episode went, but is not among stop")
    if episodes.per == BY_RANGE and not episodes.ranges:
        raise DatasetError(
            f"{where}: per: range needs ranges, name of a bag -> [[start, end], ...] in seconds"
        )
    for bag, ranges in episodes.ranges.items():
        for pair in ranges:
            if len(pair) != 2 or not 0 <= pair[0] < pair[1]:
                raise DatasetError(f"{where}.ranges.{bag}: {list(pair)}; expected [start, end] in seconds")
