"""Frames of ALOHA files: raw pixels, or JPEG rows padded with zeros to the longest frame of the episode.

The recorder encodes its RGB images with OpenCV, which takes them for BGR: in the JPEG files red and blue are
exchanged, and its own loader exchanges them back without noticing. Raw pixels are true RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import DEPTH_PREFIX, Feature
from robot_datasets.image_codec import JPEG_BGR, decode_frame, encode_frame, sniff_encoding
from robot_datasets.importers.hdf5_reading import DAMAGE

_FRAMES_PER_READ = 16
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class FrameSource:
    """How the frames of one camera become those of its feature.

    Attributes:
        key: The dataset.
        feature: Image feature.
        encoding: That of the feature in the store.
        encoded_order: What a standards-true decoder returns of encoded frames, ``"rgb"`` or ``"bgr"``.
    """

    key: str
    feature: str
    encoding: str
    encoded_order: str

    def stream(self, dataset: Any, rows: slice, lengths: np.ndarray, warnings: list[str]) -> Iterator[bytes]:
        """Yield the frames of some rows, a few read at a time.

        Args:
            dataset: h5py dataset, (T, ...).
            rows: First row and one past the last.
            lengths: (cameras, T) lengths that the file states, in an unknown order of cameras; may be empty.
            warnings: Gets a line if the stated lengths are not those found.

        Raises:
            EpisodeError: A frame cannot be read, or is no whole image.
        """
        if not (holds_pixels(dataset) or holds_encoded(dataset)):
            raise EpisodeError(f"{self.key} is {dataset.dtype} of shape {dataset.shape}, expected images")
        unexpected = 0
        for start in range(rows.start, rows.stop, _FRAMES_PER_READ):
            stop = min(rows.stop, start + _FRAMES_PER_READ)
            try:
                block = dataset[start:stop]
            except DAMAGE as error:
                raise EpisodeError(f"{self.key} steps {start}..{stop - 1} cannot be read: {error}") from error
            for step, row in enumerate(block, start):
                if holds_pixels(dataset):
                    yield self._from_pixels(row)
                    continue
                frame = self._whole(row, step)
                unexpected += step < lengths.shape[1] and len(frame) not in lengths[:, step]
                yield self._from_encoded(frame)
        if unexpected:
            warnings.append(
                f"{self.feature}: {unexpected} frames are of another length than compress_len states; "
                "they end where they should, so they were kept"
            )

    def _whole(self, row: Any, step: int) -> bytes:
        frame = unpad(row)
        kind = sniff_encoding(frame)
        if kind is None or (kind == "jpeg" and not frame.endswith(_JPEG_END)):
            found = f"{len(frame)} bytes" if frame else "nothing"
            raise EpisodeError(f"{self.key} step {step} holds {found}, expected a whole JPEG or PNG image")
        return frame

    def _from_pixels(self, row: np.ndarray) -> bytes:
        if self.feature.startswith(DEPTH_PREFIX):
            return encode_frame(row.reshape(row.shape[0], row.shape[1], 1), "png")
        stored = "png" if self.encoding == JPEG_BGR else self.encoding
        return encode_frame(row[..., ::-1] if self.encoding == JPEG_BGR else row, stored)

    def _from_encoded(self, frame: bytes) -> bytes:
        stored_order = "bgr" if self.encoding == JPEG_BGR else "rgb"
        if self.encoding != "raw" and (
            stored_order == self.encoded_order or self.feature.startswith(DEPTH_PREFIX)
        ):
            return frame
        pixels = decode_frame(frame, swapped=self.encoded_order == "bgr")
        return encode_frame(pixels, "raw" if self.encoding == "raw" else "png")


def holds_pixels(dataset: Any) -> bool:
    """Whether frames are raw: colour (T, H, W, 3) uint8, or depth (T, H, W[, 1]) uint16."""
    if dataset.dtype == np.uint16:
        return dataset.ndim == 3 or (dataset.ndim == 4 and dataset.shape[3] == 1)
    return dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3


def holds_encoded(dataset: Any) -> bool:
    """Whether frames are encoded: rows of padded bytes, byte strings, or arrays of varying length."""
    if dataset.ndim == 2:
        return dataset.dtype == np.uint8
    return dataset.ndim == 1 and dataset.dtype.kind in "SO"


def unpad(row: Any) -> bytes:
    """Return an encoded frame without the zeros behind it; JPEG and PNG never end in one."""
    data = row if isinstance(row, bytes) else np.asarray(row, dtype=np.uint8).tobytes()
    return data.rstrip(b"\0")


def measure(dataset: Any, name: str) -> Feature | None:
    """Describe a camera by its first frame, or return None if it holds nothing that fits its name.

    Raises:
        EpisodeError: The frame is damaged, or there is none.
    """
    if holds_pixels(dataset):
        size, is_depth = dataset.shape[1:3], dataset.dtype == np.uint16
    elif holds_encoded(dataset):
        try:
            pixels = decode_frame(unpad(dataset[0]))
        except (DatasetError, *DAMAGE) as error:  # ValueError: it has no frames
            raise EpisodeError(f"{dataset.name} has no whole first frame: {error}") from error
        size, is_depth = pixels.shape[:2], pixels.dtype == np.uint16
    else:
        return None
    if is_depth != name.startswith(DEPTH_PREFIX):
        return None
    return Feature(dtype="uint16" if is_depth else "uint8", shape=(*size, 1 if is_depth else 3))
