"""Small ROS 2 bags of a moving arm with a camera, written without ROS, with the faults that real ones have.

Everything in them is a function of time, so a test can tell what should have been read at any clock time:
joint i is at ``joint_position(t)[i]``, and frame k of the camera has the grey level `frame_level` (k).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.rosbag2_messages import known_types

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

START = 1_700_000_000_000_000_000
"""Time of the first possible message [ns]."""

JOINTS = ("shoulder", "elbow", "wrist")
IMAGE_SIZE = (6, 8)
"""(height, width) [px]."""

MAP_FILE = Path(__file__).with_name("rosbag_map.yaml")
"""A topic map for what `write_bag` writes."""

MAP = MAP_FILE.read_text(encoding="utf-8")
"""Its text."""

_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class BagSpec:
    """What to write.

    Attributes:
        duration: Length [s].
        storage: ``"mcap"`` or ``"sqlite3"``.
        compression: Empty, ``"message"``, ``"file"``, or ``"storage"`` (the chunks of an mcap).
        joint_rate: Messages per second of ``/joint_states``.
        image_rate: Frames per second.
        raw: Encoding of raw images on ``/camera``; empty for JPEG on ``/camera/compressed``.
        latency: How much later than its stamp a message arrives [s].
        stamp_offset: Added to all stamps [s], e.g. for a simulated clock.
        reorder: Messages name their joints in an order of their own.
        silence: Topic -> (from, to) [s] in which it sends nothing.
        markers: (time [s], text) on ``/episode``.
        texts: (time [s], instruction) on ``/task``.
        with_pose: Also ``/pose``, a stamped pose turning about z.
        duplicates: Send every joint state twice.
    """

    duration: float = 3.0
    storage: str = "mcap"
    compression: str = ""
    joint_rate: float = 50.0
    image_rate: float = 15.0
    raw: str = ""
    latency: float = 0.0
    stamp_offset: float = 0.0
    reorder: bool = False
    silence: dict[str, tuple[float, float]] = field(default_factory=dict)
    markers: Sequence[tuple[float, str]] = ()
    texts: Sequence[tuple[float, str]] = ()
    with_pose: bool = False
    duplicates: bool = False


def joint_position(time: np.ndarray | float) -> np.ndarray:
    """Return the angles [rad] of the joints at a time [s]: (..., 3)."""
    t = np.asarray(time)[..., None]
    return np.sin(t * np.array([0.7, 1.1, 1.9]) + np.array([0.0, 1.0, 2.0]))


def frame_level(number: int) -> int:
    """Return the grey level of a frame, far enough from its neighbours' to survive JPEG."""
    return (number * 16) % 256


def yaw_quaternion(time: float) -> tuple[float, float, float, float]:
    """Return the pose's orientation (x, y, z, w) at a time [s]; its sign changes now and then."""
    sign = -1.0 if int(time * 7) % 2 else 1.0
    return 0.0, 0.0, sign * float(np.sin(time / 2)), sign * float(np.cos(time / 2))


def write_bag(folder: Path, spec: BagSpec | None = None) -> Path:
    """Write a bag with its ``metadata.yaml``; `folder` is made and returned."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    spec = spec or BagSpec()
    store = known_types()
    messages = sorted(_messages(spec, store), key=lambda m: m[0])
    folder.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin[spec.storage.upper()])
    if spec.compression:
        writer.set_compression(CompressionMode[spec.compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for time, topic, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            data = store.serialize_cdr(message, kind)
            writer.write(connections[topic], START + round(time * _NS), data)
    return folder


def write_split_bag(folder: Path, spec: BagSpec | None = None, *, parts: int = 2) -> Path:
    """Write a bag in several files, cut at equal times, as ``ros2 bag record --max-bag-duration`` does."""
    spec = spec or BagSpec()
    folder.mkdir(parents=True)
    ending = {"mcap": "mcap", "sqlite3": "db3"}[spec.storage]
    whole = write_bag(folder / "whole", spec)
    information = read_metadata(whole)
    names = []
    for part in range(parts):
        first, last = spec.duration * part / parts, spec.duration * (part + 1) / parts
        piece = write_bag(folder / f"part{part}", replace(spec, silence=spec.silence | {"*": (first, last)}))
        names.append(f"{folder.name}_{part}.{ending}")
        next(piece.glob(f"*.{ending}")).rename(folder / names[-1])
        _remove(piece)
    _remove(whole)
    information["relative_file_paths"] = names
    write_metadata(folder, information)
    return folder


def read_metadata(bag: Path) -> dict[str, Any]:
    """Return the content of a bag's ``metadata.yaml``."""
    values = yaml.safe_load((bag / "metadata.yaml").read_text(encoding="utf-8"))
    return values["rosbag2_bagfile_information"]


def write_metadata(bag: Path, information: dict[str, Any]) -> None:
    """Replace a bag's ``metadata.yaml``."""
    text = yaml.safe_dump({"rosbag2_bagfile_information": information})
    (bag / "metadata.yaml").write_text(text, encoding="utf-8")


def edit_metadata(bag: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a bag's ``metadata.yaml``."""
    information = read_metadata(bag)
    edit(information)
    write_metadata(bag, information)


def write_killed_mcap(path: Path, spec: BagSpec | None = None, *, chunk_bytes: int = 20_000) -> Path:
    """Write a file as a recorder leaves it that is killed: whole chunks, half of another one, no index, no metadata."""
    from mcap.writer import Writer

    store = known_types()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        writer = Writer(stream, chunk_size=chunk_bytes)
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for time, topic, message in sorted(_messages(spec or BagSpec(), store), key=lambda m: m[0]):
            kind = message.__msgtype__
            if topic not in channels:
                definition, _ = store.generate_msgdef(kind)
                schema = writer.register_schema(kind, "ros2msg", definition.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            stamp = START + round(time * _NS)
            data = bytes(store.serialize_cdr(message, kind))
            writer.add_message(channels[topic], stamp, data, stamp)
        stream.flush()
        size = stream.tell()
    with path.open("r+b") as stream:
        stream.truncate(size - chunk_bytes // 3)
    return path


def _messages(spec: BagSpec, store: Typestore) -> Iterable[tuple[float, str, Any]]:
    """Yield (time [s], topic, message) of everything that is not silent."""
    inside = spec.silence.get("*", (0.0, np.inf))
    for time, topic, message in _all_messages(spec, store):
        first, last = spec.silence.get(topic, (np.inf, np.inf))
        if first <= time < last or not inside[0] <= time < inside[1]:
            continue
        yield time + spec.latency, topic, message


def _all_messages(spec: BagSpec, store: Typestore) -> Iterable[tuple[float, str, Any]]:
    types: Any = store.types
    joint_state, floats = types["sensor_msgs/msg/JointState"], types["std_msgs/msg/Float64MultiArray"]
    layout = types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    for k in range(int(spec.duration * spec.joint_rate)):
        time = k / spec.joint_rate
        order = np.roll(np.arange(3), k % 3 if spec.reorder else 0)
        message = joint_state(
            header=_header(types, time + spec.stamp_offset),
            name=[JOINTS[i] for i in order],
            position=joint_position(time)[order],
            velocity=np.zeros(3),
            effort=np.zeros(0),
        )
        for _ in range(1 + spec.duplicates):
            yield time, "/joint_states", message
    for k in range(int(spec.duration * 20)):
        yield k / 20, "/command", floats(layout=layout, data=joint_position(k / 20 + 0.1))
    for time, value in ((0.0, 1.0), (spec.duration / 2, 0.0)):
        yield time, "/gripper", types["std_msgs/msg/Float64"](data=value)
    yield from _frames(spec, types)
    for topic, entries in (("/episode", spec.markers), ("/task", spec.texts)):
        for time, text in entries:
            yield time, topic, types["std_msgs/msg/String"](data=text)
    if spec.with_pose:
        for k in range(int(spec.duration * 25)):
            yield k / 25, "/pose", _pose(types, k / 25, spec.stamp_offset)


def _frames(spec: BagSpec, types: Any) -> Iterable[tuple[float, str, Any]]:
    height, width = IMAGE_SIZE
    for k in range(int(spec.duration * spec.image_rate)):
        time = k / spec.image_rate
        pixels = np.full((height, width, 3), frame_level(k), np.uint8)
        header = _header(types, time + spec.stamp_offset)
        if not spec.raw:
            data = np.frombuffer(encode_frame(pixels, "jpeg"), np.uint8)
            message = types["sensor_msgs/msg/CompressedImage"](
                header=header, format="rgb8; jpeg compressed bgr8", data=data
            )
            yield time, "/camera/compressed", message
            continue
        rows, step = raw_rows(pixels, spec.raw)
        yield (
            time,
            "/camera",
            types["sensor_msgs/msg/Image"](
                header=header,
                height=height,
                width=width,
                encoding=spec.raw,
                is_bigendian=0,
                step=step,
                data=rows,
            ),
        )


def raw_rows(pixels: np.ndarray, encoding: str) -> tuple[np.ndarray, int]:
    """Return the bytes of a raw image whose rows are padded, and the length of a row [bytes].

    Colour has more red than blue; depth is the grey level in units of 10 mm.
    """
    height = len(pixels)
    coloured = pixels.copy()
    coloured[..., 2] //= 2
    if encoding in ("16UC1", "32FC1"):
        depth = pixels[..., 0].astype(np.uint16) * 10
        stored = depth if encoding == "16UC1" else (depth / 1000).astype(np.float32)
        flat = np.frombuffer(stored.tobytes(), np.uint8).reshape(height, -1)
    else:
        order = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 2], "mono8": [0]}[encoding]
        flat = coloured[..., order].reshape(height, -1)
    padded = np.concatenate([flat, np.full((height, 5), 99, np.uint8)], axis=1)
    return padded.ravel(), padded.shape[1]


def _pose(types: Any, time: float, offset: float) -> Any:
    x, y, z, w = yaw_quaternion(time)
    pose = types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](x=time, y=2 * time, z=0.5),
        orientation=types["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w),
    )
    return types["geometry_msgs/msg/PoseStamped"](header=_header(types, time + offset), pose=pose)


def _header(types: Any, time: float) -> Any:
    stamp = START + round(time * _NS)
    return types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](sec=stamp // _NS, nanosec=stamp % _NS), frame_id="base"
    )


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
