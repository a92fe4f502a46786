"""Small ALOHA episodes, real and simulated, raw and compressed, as the recorders write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot_datasets.image_codec import encode_frame

SIZE = (12, 16)
"""(height, width) of the images [px]."""


def aloha_pixels(n_steps: int, seed: int) -> np.ndarray:
    """Return smooth RGB images (T, H, W, 3) in which red, green and blue are easily told apart."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    frames = [
        np.stack([200 - y * 4, 90 + x + 0 * y, np.full(SIZE, 10 + 5 * step + seed)], axis=-1)
        for step in range(n_steps)
    ]
    return np.asarray(frames, dtype=np.uint8).reshape(n_steps, *SIZE, 3)


def write_aloha_episode(
    folder: Path,
    number: int,
    n_steps: int,
    *,
    simulated: bool | None = False,
    compressed: bool = False,
    mobile: bool = False,
    cameras: Sequence[str] = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"),
    depth: bool = False,
    width: int = 14,
    form: str = "rows",
    longest: int = 0,
) -> Path:
    """Write ``episode_<number>.hdf5``.

    Args:
        folder: Where; made if needed.
        number: Number of the episode and seed of its content.
        n_steps: T.
        simulated: Attribute ``sim``; None leaves it out, as old recordings do.
        compressed: JPEG instead of raw images, encoded from RGB as if they were BGR.
        mobile: With the motion of the base.
        cameras: Colour cameras, in the order in which ``compress_len`` lists them.
        depth: With a raw depth camera.
        width: Components of positions and actions.
        form: Of compressed frames: ``"rows"`` padded with zeros, ``"strings"`` or ``"varying"``.
        longest: Cuts rows to this many bytes; 0 = as long as needed.

    Returns:
        The file.
    """
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"episode_{number}.hdf5"
    random = np.random.default_rng((number, n_steps))
    with h5py.File(path, "w") as root:
        if simulated is not None:
            root.attrs["sim"] = simulated
        root.attrs["compress"] = compressed
        for key in ("observations/qpos", "observations/qvel", "observations/effort", "action"):
            root.create_dataset(key, data=random.normal(size=(n_steps, width)).astype(np.float32))
        if mobile:
            root.create_dataset("base_action", data=random.normal(size=(n_steps, 2)).astype(np.float32))
        lengths = []
        for camera in cameras:
            pixels = aloha_pixels(n_steps, number)
            key = f"observations/images/{camera}"
            if not compressed:
                root.create_dataset(key, data=pixels, chunks=(1, *pixels.shape[1:]) if n_steps else None)
                continue
            frames = [encode_frame(np.ascontiguousarray(frame[..., ::-1]), "jpeg") for frame in pixels]
            lengths.append([len(frame) for frame in frames])
            _write_frames(root, key, frames, form, longest)
        if compressed:
            root.create_dataset("compress_len", data=np.asarray(lengths, dtype=np.float32))
        if depth:
            values = random.integers(200, 3000, (n_steps, *SIZE)).astype(np.uint16)
            root.create_dataset("observations/images/cam_high_depth", data=values)
    return path


def _write_frames(root: object, key: str, frames: list[bytes], form: str, longest: int) -> None:
    import h5py

    assert isinstance(root, h5py.File)
    if form == "varying":
        dataset = root.create_dataset(key, (len(frames),), dtype=h5py.vlen_dtype(np.uint8))
        for step, frame in enumerate(frames):
            dataset[step] = np.frombuffer(frame, np.uint8)
        return
    size = longest or max(map(len, frames), default=0)
    if form == "strings":
        root.create_dataset(key, data=np.array(frames, dtype=f"S{size}"))
        return
    rows = np.zeros((len(frames), size), np.uint8)
    for row, frame in zip(rows, frames, strict=True):
        row[: len(frame[:size])] = np.frombuffer(frame[:size], np.uint8)
    root.create_dataset(key, data=rows)
