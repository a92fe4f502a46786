"""Small sources in the layouts of the formats we import."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from robot_datasets.image_codec import encode_frame


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


def _encode_depth(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _write_trajectory(
    root: Path,
    *,
    folder: str = "h5_franka_1rgb",
    task: str = "bread_in_basket",
    episode: str = "1014_144602",
    split: str = "train",
    cameras: tuple[str, ...] = ("camera_top",),
    depth: tuple[str, ...] | None = None,
    n_steps: int = 6,
    size: tuple[int, int] = (16, 24),
    seed: int = 0,
) -> Path:
    random = np.random.default_rng(seed)
    parts = [
        "benchmark1_0_release",
        folder,
        task,
        "success_episodes",
        *([split] if split else []),
        episode,
        "data",
    ]
    path = root.joinpath(*parts) / "trajectory.hdf5"
    path.parent.mkdir(parents=True)
    vlen = h5py.vlen_dtype(np.uint8)
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file.attrs["compress"] = True
        for key, width in (
            ("puppet/joint_position", 8),
            ("puppet/end_effector", 6),
            ("master/joint_position", 8),
        ):
            file[key] = random.normal(size=(n_steps, width))
        for group in ("observations/rgb_images", "observations/depth_images"):
            file.create_group(group)
        for camera in cameras:
            frames = file.create_dataset(f"observations/rgb_images/{camera}", (n_steps,), dtype=vlen)
            for step in range(n_steps):
                pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
                frames[step] = np.frombuffer(encode_frame(pixels, "jpeg"), np.uint8)
        for camera in cameras if depth is None else depth:
            frames = file.create_dataset(f"observations/depth_images/{camera}", (n_steps,), dtype=vlen)
            for step in range(n_steps):
                frames[step] = np.frombuffer(
                    _encode_depth(random.integers(0, 3000, size, dtype=np.uint16)), np.uint8
                )
    return path


@pytest.fixture
def write_trajectory() -> Callable[..., Path]:
    """Writes one RoboMIND 1.x Franka trajectory.hdf5 at its place in a release tree and returns the file."""
    return _write_trajectory
