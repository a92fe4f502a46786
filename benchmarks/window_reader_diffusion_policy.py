"""A reader for `dataset_windows.py`: diffusion_policy's own sampler, from a checkout of its repository.

    python benchmarks/window_reader_diffusion_policy.py CHECKOUT BUFFER.zarr CAMERA raw|jpeg2k

`raw` is what its PushT image dataset does: the buffer is copied into RAM as it is. `jpeg2k` is what its robomimic
image dataset does: frames lie in RAM compressed by JPEG 2000, one to a chunk. Both read images of the observed steps
only (`key_first_k`), which its newer datasets do and which is faster. Needs zarr 2, numba, and imagecodecs for jpeg2k.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from window_protocol import T_A, T_O, T_P, serve


def load(checkout: str, buffer: str, camera: str, kind: str) -> Any:
    """Return their replay buffer, in RAM."""
    zarr: Any = import_module("zarr")  # version 2
    sys.path.insert(0, checkout)
    from diffusion_policy.common.replay_buffer import ReplayBuffer  # pyright: ignore[reportMissingImports]

    if kind == "raw":
        return ReplayBuffer.copy_from_path(buffer)
    from diffusion_policy.codecs.imagecodecs_numcodecs import (  # pyright: ignore[reportMissingImports]
        Jpeg2k,
        register_codecs,
    )

    register_codecs()
    source = zarr.open(buffer, "r")
    root = zarr.group(zarr.MemoryStore())
    meta, data = root.create_group("meta"), root.create_group("data")
    meta.array("episode_ends", source["meta/episode_ends"][:], compressor=None)
    for key, values in source["data"].items():
        chunks = (1, *values.shape[1:]) if key == camera else values.shape
        compressor = Jpeg2k(level=50) if key == camera else None
        data.array(key, values[:], chunks=chunks, compressor=compressor)
    return ReplayBuffer(root)


def main(checkout: str, buffer: str, camera: str, kind: str) -> None:
    """Serve windows one at a time, which is the only way the sampler knows."""
    replay = load(str(Path(checkout)), buffer, camera, kind)
    from diffusion_policy.common.sampler import SequenceSampler  # pyright: ignore[reportMissingImports]

    keys = [key for key in ("state", "observation.state", "action", camera) if key in replay.keys()]  # noqa: SIM118
    sampler = SequenceSampler(
        replay, T_P, pad_before=T_O - 1, pad_after=T_A - 1, keys=keys, key_first_k={camera: T_O}
    )

    def draw(numbers: np.ndarray) -> None:
        for number in numbers.tolist():
            sampler.sample_sequence(number)

    def show(number: int) -> tuple[np.ndarray, np.ndarray]:
        found = sampler.sample_sequence(number)
        return found["action"], found[camera][:T_O]

    serve(len(sampler), draw, show)


if __name__ == "__main__":
    main(*sys.argv[1:5])
