"""Small sources in the layouts of the formats we import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr


def _write_replay_buffer(
    path: Path,
    lengths: tuple[int, ...] = (5, 1, 9, 4),
    *,
    arrays: dict[str, np.ndarray] | None = None,
    ends: bool = True,
    chunk: int = 6,
) -> Path:
    random = np.random.default_rng(3)
    n = sum(lengths)
    if arrays is None:
        starts = np.repeat(np.arange(len(lengths)) * 40.0, lengths)[
            :, None
        ]  # the block jumps between episodes
        arrays = {
            "state": np.concatenate(
                [random.random((n, 2)) * 512, starts + [[100, 200]] * n, starts * 0 + 1], axis=1
            ),
            "keypoint": random.random((n, 9, 2)) * 512,
            "action": np.round(random.random((n, 2)) * 512),
            "img": random.integers(0, 256, (n, 8, 8, 3)),
        }
        arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    root = zarr.create_group(str(path), zarr_format=2)
    data = root.create_group("data")
    for key, value in arrays.items():
        array = data.create_array(
            key, shape=value.shape, dtype=value.dtype, chunks=(chunk, *value.shape[1:]), fill_value=0
        )
        array[...] = value
    meta = root.create_group("meta")
    if ends:
        cumulative = np.cumsum(lengths)
        meta.create_array("episode_ends", shape=cumulative.shape, dtype=np.int64, fill_value=0)[...] = (
            cumulative
        )
    return path


@pytest.fixture
def write_replay_buffer() -> Callable[..., Path]:
    """Writes a PushT-like zarr v2 replay buffer; keyword `arrays` replaces its data."""
    return _write_replay_buffer
