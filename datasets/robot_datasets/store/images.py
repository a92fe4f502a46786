"""Reading the frames of one camera by step number, without zarr in the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import BytesLike, frame_size
from robot_datasets.store.blob import LocalBlob, RemoteBlob
from robot_datasets.store.frames import decode_as


class ImageColumn:
    """All frames of one image feature, indexed by step of the store.

    Attributes:
        name: Feature name.
        feature: What the frames are; sizes of 0 vary.
        encoding: One of `robot_datasets.image_codec.STORED_ENCODINGS`; `decode` takes care of it.
        offsets: Frame i is bytes ``offsets[i]`` to ``offsets[i + 1]`` of the payload, (T + 1,) int64.
    """

    def __init__(
        self, name: str, feature: Feature, encoding: str, offsets: np.ndarray, blob: LocalBlob | RemoteBlob
    ) -> None:
        self.name = name
        self.feature = feature
        self.encoding = encoding
        self.offsets = offsets
        self._blob = blob

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def encoded(self, index: int) -> memoryview:
        """Return the bytes of one frame; on a local store a view of the file, not a copy."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} frames, got index {index}")
        return self._blob.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def encoded_many(self, indices: np.ndarray | Sequence[int]) -> list[memoryview]:
        """Return the bytes of several frames; a remote store is asked once for all of them."""
        steps = np.asarray(indices, dtype=np.int64)
        if steps.size and (steps.min() < 0 or steps.max() >= len(self)):
            raise IndexError(f"{self.name} has {len(self)} frames, got indices {steps.min()}..{steps.max()}")
        return self._blob.read_many(self.offsets[steps], self.offsets[steps + 1])

    def decode(self, indices: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Decode frames to pixels.

        Args:
            indices: Steps (N,).
            out: Optional C-contiguous (N, H, W, C) array to fill.

        Returns:
            (N, H, W, C) uint8 RGB, or uint16 depth.

        Raises:
            DatasetError: A frame is damaged, or the frames differ in size.
        """
        if self.encoding == "raw" and isinstance(self._blob, LocalBlob) and len(indices):
            return self._gather_raw(np.asarray(indices, dtype=np.int64), self._blob, out)
        frames = self.encoded_many(indices)
        if out is None:
            height, width = self._size_of(frames)
            out = np.empty((len(frames), height, width, self.feature.shape[2]), dtype=self.feature.dtype)
        for position, frame in enumerate(frames):
            try:
                decode_as(frame, self.feature, self.encoding, out=out[position])
            except DatasetError as error:
                raise DatasetError(f"{self.name}, step {int(indices[position])}: {error}") from error
        return out

    def _gather_raw(self, steps: np.ndarray, blob: LocalBlob, out: np.ndarray | None) -> np.ndarray:
        """Copy frames of raw pixels, file by file: all are of one size, so those of a file are rows of one array."""
        if steps.min() < 0 or steps.max() >= len(self):
            raise IndexError(f"{self.name} has {len(self)} frames, got indices {steps.min()}..{steps.max()}")
        dtype = np.dtype(self.feature.dtype).newbyteorder("<")
        size = dtype.itemsize * int(np.prod(self.feature.shape))
        starts = self.offsets[steps]
        if (self.offsets[steps + 1] - starts != size).any():
            raise DatasetError(
                f"{self.name}: raw frames differ from {size} bytes; the store is damaged, copy it again"
            )
        if out is None:
            out = np.empty((len(steps), *self.feature.shape), dtype=self.feature.dtype)
        elif out.shape[1:] != self.feature.shape or out.dtype != self.feature.dtype:
            raise DatasetError(
                f"{self.name} has frames {self.feature.shape}, expected {out.shape[1:]}; sizes vary"
            )
        files = starts // blob.chunk_bytes
        whole = files == (starts + size - 1) // blob.chunk_bytes
        for file in np.unique(files[whole]).tolist():
            chosen = np.flatnonzero(whole & (files == file))
            rows = blob.rows(file, size, int(starts[chosen[0]])).view(dtype)
            places = (starts[chosen] - file * blob.chunk_bytes) // size
            if places.max() >= len(rows):
                raise DatasetError(
                    f"{self.name}: file {file} of its frames is truncated; copy the store again"
                )
            frames = rows.reshape(len(rows), *self.feature.shape)
            if len(chosen) == len(steps):
                return np.take(frames, places, axis=0, out=out, mode="clip")  # clip copies without a buffer
            for position, place in zip(chosen.tolist(), places.tolist(), strict=True):
                out[position] = frames[place]  # together they would be copied twice
        for place in np.flatnonzero(~whole).tolist():  # across two files
            decode_as(
                blob.read(int(starts[place]), int(starts[place]) + size), self.feature, "raw", out=out[place]
            )
        return out

    def _size_of(self, frames: Sequence[BytesLike]) -> tuple[int, int]:
        height, width = self.feature.shape[:2]
        if (height and width) or not frames:
            return height, width
        return frame_size(frames[0])
