"""A reader for `dataset_windows.py`: diffusion_policy's own sampler, from a checkout of its repository.

    python benchmarks/window_reader_diffusion_policy.py CHECKOUT BUFFER.zarr CAMERA KIND

`jpeg2k` is what its robomimic image dataset does: frames lie in RAM compressed by JPEG 2000, one to a chunk, and
images are read of the observed steps only (`key_first_k`). `raw` is the same with the buffer in RAM as it is.
`raw, stacked` is what its PushT image dataset does: without `key_first_k` the sampler returns views of RAM and reads
no pixel, so here the observed steps are stacked to batches, which a loader has to do at least. Needs zarr 2, numba, and
imagecodecs for jpeg2k.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from window_protocol import T_A, T_O, T_P, serve

BATCH = 64


def load(checkout: str, buffer: str, camera: str, kind: str) -> Any:
    """Return their replay buffer, in RAM."""
    zarr: Any = import_module("zarr")  # version 2
    sys.path.insert(0, checkout)
    from diffusion_policy.common.replay_buffer import ReplayBuffer  # pyright: ignore[reportMissingImports]

    if kind != "jpeg2k":
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
    stacked = kind == "raw, stacked"
    first = {} if stacked else {camera: T_O}
    sampler = SequenceSampler(
        replay, T_P, pad_before=T_O - 1, pad_after=T_A - 1, keys=keys, key_first_k=first
    )

    def draw(numbers: np.ndarray) -> None:
        for begin in range(0, len(numbers), BATCH):
            samples = map(sampler.sample_sequence, numbers[begin : begin + BATCH].tolist())
            if stacked:
                batch = list(samples)
                {key: np.stack([s[key][: T_O if key == camera else T_P] for s in batch]) for key in keys}
            for _ in samples:
                pass

    def show(number: int) -> tuple[np.ndarray, np.ndarray]:
        found = sampler.sample_sequence(number)
        return found["action"], found[camera][:T_O]

    serve(len(sampler), draw, show)


if __name__ == "__main__":
    main(*sys.argv[1:5])
