"""Small example data: random episodes, a store of them, and a digest to compare trees of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter

EXAMPLE_IMAGE = IMAGE_PREFIX + "top"


def example_features(*, image_size: int = 0) -> dict[str, Feature]:
    """Return state (3), action (2) and, if `image_size` is not 0, a square colour camera."""
    features = {
        STATE: Feature(dtype="float32", shape=(3,), names=("x", "y", "z"), units=("m",)),
        ACTION: Feature(dtype="float32", shape=(2,), names=("vx", "vy"), units=("m/s",), meaning="velocity"),
    }
    if image_size:
        features[EXAMPLE_IMAGE] = Feature(dtype="uint8", shape=(image_size, image_size, 3))
    return features


def example_episodes(lengths: list[int], *, image_size: int = 0, seed: int = 0) -> Iterator[Episode]:
    """Yield random episodes of `lengths`; the same arguments give the same episodes."""
    for index, length in enumerate(lengths):
        random = np.random.default_rng((seed, index))
        pixels = random.integers(0, 256, (length, image_size, image_size, 3), dtype=np.uint8)
        images = {EXAMPLE_IMAGE: (encode_frame(frame, "png") for frame in pixels)} if image_size else {}
        yield Episode(
            f"episode_{index:04d}",
            {
                STATE: random.normal(size=(length, 3)).astype(np.float32),
                ACTION: random.normal(size=(length, 2)).astype(np.float32),
            },
            dict(images),
            task=f"task {index % 2}",
        )


def write_example_store(
    path: Path, lengths: list[int], *, image_size: int = 0, seed: int = 0
) -> EpisodeStore:
    """Write `example_episodes` to a store at `path` (10 Hz) and open it."""
    features = example_features(image_size=image_size)
    with EpisodeStoreWriter(path, features=features, fps=10.0, embodiment="example") as writer:
        for episode in example_episodes(lengths, image_size=image_size, seed=seed):
            writer.add_episode(episode)
        writer.publish()
    return EpisodeStore.open(path)


def tree_digest(path: Path) -> str:
    """Hash the names and bytes of all files below `path`; equal trees give equal digests."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
    return digest.hexdigest()
