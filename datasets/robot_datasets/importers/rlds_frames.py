"""Cameras of an RLDS dataset: which keys are images, how large they are, and their frames as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX, Feature
from robot_datasets.image_codec import JPEG_BGR, encode_frame, frame_size, sniff_encoding
from robot_datasets.importers.rlds_features import STEPS, RecordKey
from robot_datasets.importers.tfrecord import ExampleValue
from robot_datasets.schemas import CameraSource

_OBSERVATION = "observation/"
_RECORDS_MEASURED = 20


@dataclass(frozen=True)
class RldsCamera:
    """One camera: its key, and whether red and blue are exchanged in its frames."""

    key: RecordKey
    swapped: bool = False

    def frames(self, value: ExampleValue, steps: slice, n_recorded: int) -> Iterator[bytes]:
        """Return the frames of `steps`, encoded: as they are, or as PNG if they are pixels.

        Raises:
            EpisodeError: There are not `n_recorded` frames, or one is empty or not an encoded image.
        """
        if self.key.kind == "numbers":
            pixels = self.key.read(value)
            self._expect(len(pixels), n_recorded)
            return (encode_frame(frame, "png") for frame in pixels[steps])
        encoded = value.byte_strings()
        self._expect(len(encoded), n_recorded)
        return self._encoded(encoded, range(*steps.indices(n_recorded)))

    def _encoded(self, frames: list[memoryview], steps: range) -> Iterator[bytes]:
        for step in steps:
            frame = bytes(frames[step])
            if sniff_encoding(frame) is None:
                found = f"{len(frame)} bytes that are neither JPEG nor PNG" if frame else "nothing"
                raise EpisodeError(
                    f"{self.key.path} step {step} holds {found}; leave the camera out with --option cameras=..."
                )
            yield frame

    def _expect(self, found: int, expected: int) -> None:
        if found != expected:
            raise EpisodeError(f"{self.key.path} has {found} frames for {expected} steps")


def generic_cameras(keys: Mapping[str, RecordKey]) -> dict[str, CameraSource]:
    """Return every image among the observations that can be stored, under its own name."""
    cameras: dict[str, CameraSource] = {}
    for key in keys.values():
        inside = key.path.removeprefix(STEPS)
        if not inside.startswith(_OBSERVATION) or _prefix(key) is None:
            continue
        name = inside.removeprefix(_OBSERVATION).replace("/", ".")
        if _prefix(key) == IMAGE_PREFIX:
            cameras[name] = CameraSource(source=inside)
        else:
            cameras[name] = CameraSource(source="", depth=inside)
    return cameras


def camera_features(
    cameras: Mapping[str, CameraSource], keys: Mapping[str, RecordKey]
) -> dict[str, RldsCamera]:
    """Return image feature -> camera for the chosen cameras.

    Raises:
        DatasetError: The dataset has no such key, or it holds no image that can be stored.
    """
    found: dict[str, RldsCamera] = {}
    for name, camera in cameras.items():
        for prefix, source in ((IMAGE_PREFIX, camera.source), (DEPTH_PREFIX, camera.depth)):
            key = keys.get(STEPS + source)
            if not source or (key is None and camera.optional):
                continue
            if key is None or _prefix(key) != prefix:
                has = f"{key.dtype} {key.shape}" if key else "nothing"
                raise DatasetError(
                    f"camera {name} is to be read from {STEPS}{source}, which holds {has}; expected an image, "
                    "choose others with --option cameras=... or another --option schema=..."
                )
            found[prefix + name] = RldsCamera(key, swapped=camera.channels == "bgr")
    return found


def measure(
    cameras: Mapping[str, RldsCamera], examples: Callable[[int], Iterator[Mapping[str, ExampleValue]]]
) -> tuple[dict[str, Feature], dict[str, str], list[str]]:
    """Look at the first frame of some records.

    Args:
        cameras: Image feature -> camera.
        examples: Yields up to that many records, spread over the dataset.

    Returns:
        The features (a size that varies is 0), their usual encodings, and where the description is wrong.
    """
    sizes: dict[str, set[tuple[int, int]]] = {name: set() for name in cameras}
    encodings = dict.fromkeys(cameras, "png")
    for example in examples(_RECORDS_MEASURED if cameras else 0):
        for name, camera in cameras.items():
            value = example.get(camera.key.path)
            frame = None if value is None else _first(camera, value)
            if frame is not None:
                sizes[name].add(frame_size(frame))
                encodings[name] = JPEG_BGR if camera.swapped else sniff_encoding(frame) or "png"
    features, warnings = {}, []
    for name, camera in cameras.items():
        declared = camera.key.shape[:2]
        known = (declared[0], declared[1]) if len(declared) == 2 and -1 not in declared else None
        if len(sizes[name]) > 1 or not sizes[name]:
            size = known if known and not sizes[name] else (0, 0)
        else:
            size = next(iter(sizes[name]))
        if known and size != known:
            warnings.append(
                f"{camera.key.path} is declared {known[0]}x{known[1]} px, found {size or 'several'}"
            )
        depth = name.startswith(DEPTH_PREFIX)
        features[name] = Feature(dtype="uint16" if depth else "uint8", shape=(*size, 1 if depth else 3))
    return features, encodings, warnings


def _first(camera: RldsCamera, value: ExampleValue) -> bytes | None:
    """Return the first frame, or None if it is unusable, which reading the episode will report."""
    try:
        n_frames = len(camera.key.read(value) if camera.key.kind == "numbers" else value.byte_strings())
        frame = next(camera.frames(value, slice(0, 1), n_frames))
        frame_size(frame)
    except (DatasetError, StopIteration):
        return None
    return frame


def _prefix(key: RecordKey) -> str | None:
    """Return what kind of image feature a key can become, by its declared type and number of channels."""
    is_pixels = key.kind == "numbers" and len(key.shape) == 3 and -1 not in key.shape
    if not key.per_step or not (key.kind == "image" or is_pixels):
        return None
    channels = key.shape[2] if len(key.shape) == 3 else 3
    return {("uint8", 3): IMAGE_PREFIX, ("uint16", 1): DEPTH_PREFIX}.get((key.dtype, channels))
