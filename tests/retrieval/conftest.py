"""A planted prior: a point that walks to A (the task), to B, or about, so that what is useful is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from robot_datasets.episode import Episode
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter

A, B = np.array([1.0, 0.0]), np.array([-1.0, 0.5])
LENGTH = 20
FEATURES = {
    STATE: Feature(dtype="float32", shape=(2,), names=("x", "y"), units=("m",)),
    ACTION: Feature(dtype="float32", shape=(2,), names=("vx", "vy"), units=("m",), meaning="displacement"),
}
CAMERA = IMAGE_PREFIX + "top"


def _walk(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """States and actions (LENGTH, 2) of one episode."""
    position = rng.uniform(-0.2, 0.2, size=2) - np.array([0.0, 1.0])
    states, actions = [], []
    for _ in range(LENGTH):
        goal = {"useful": A, "irrelevant": B}.get(kind)
        action = rng.normal(size=2) * 0.1 if goal is None else (goal - position) * 0.15
        states.append(position)
        actions.append(action + rng.normal(scale=0.005, size=2))
        position = position + actions[-1]
    return np.array(states, np.float32), np.array(actions, np.float32)


def _frames(states: np.ndarray) -> Iterator[bytes]:
    axis = np.linspace(-1.5, 1.5, 24)
    for x, y in states:
        near = np.hypot(axis[None] - x, axis[:, None] - y) < 0.25
        yield encode_frame(np.repeat(np.where(near, 250, 20).astype(np.uint8)[..., None], 3, -1), "png")


def _write(path: Path, kinds: Sequence[str], seed: int, images: bool) -> EpisodeStore:
    features = dict(FEATURES)
    if images:
        features[CAMERA] = Feature(dtype="uint8", shape=(24, 24, 3))
    with EpisodeStoreWriter(path, features=features, fps=10.0, embodiment="point") as writer:
        for index, kind in enumerate(kinds):
            states, actions = _walk(kind, np.random.default_rng((seed, index)))
            writer.add_episode(
                Episode(
                    f"{kind}/{index:03d}",
                    {STATE: states, ACTION: actions},
                    {CAMERA: _frames(states)} if images else {},
                    task="walk to A" if kind == "useful" else "walk",
                )
            )
        writer.publish()
    return EpisodeStore.open(path)


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., tuple[EpisodeStore, EpisodeStore]]:
    """``planted(n, images=False)``: a prior of n episodes of each kind, and a target of three useful ones."""

    def make(n: int = 10, *, images: bool = False) -> tuple[EpisodeStore, EpisodeStore]:
        prior = _write(tmp_path / "prior.zarr", ["useful", "irrelevant", "bad"] * n, 0, images)
        return prior, _write(tmp_path / "target.zarr", ["useful"] * 3, 1, images)

    return make
