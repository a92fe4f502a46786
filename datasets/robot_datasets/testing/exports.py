"""A store with everything that an exporter may meet, and what must come back from a round trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robot_datasets.episode import Episode, Segment
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter

EXPORT_LENGTHS = (4, 3, 6)
"""Steps of the episodes of `write_store_to_export`."""

_SIZE = (8, 10)


def write_store_to_export(path: Path, *, varying: bool = False) -> EpisodeStore:
    """Write a store of three episodes with every type of number, colour and depth, labels of every kind.

    Args:
        path: Where.
        varying: The colour camera's frames have no common size.
    """
    random = np.random.default_rng(7)
    size = (0, 0) if varying else _SIZE
    features = {
        STATE: Feature(dtype="float64", shape=(3,), names=("x", "y", "z"), units=("m",), frame="robot_base"),
        ACTION: Feature(dtype="float32", shape=(2,), names=("vx", "vy"), units=("m/s",), meaning="velocity"),
        "observation.poses": Feature(dtype="float32", shape=(2, 4), rotation="quat_wxyz"),
        "observation.contact": Feature(dtype="bool", shape=(1,)),
        "observation.count": Feature(dtype="int32", shape=(2,)),
        "next.reward": Feature(dtype="float32", shape=(1,)),
        IMAGE_PREFIX + "top": Feature(dtype="uint8", shape=(*size, 3)),
        DEPTH_PREFIX + "top": Feature(dtype="uint16", shape=(*_SIZE, 1), units=("mm",)),
    }
    with EpisodeStoreWriter(path, features=features, fps=29.97, embodiment="example") as writer:
        for e, n in enumerate(EXPORT_LENGTHS):
            data = {
                STATE: random.normal(size=(n, 3)),
                ACTION: random.normal(size=(n, 2)).astype(np.float32),
                "observation.poses": random.normal(size=(n, 2, 4)).astype(np.float32),
                "observation.contact": random.random((n, 1)) < 0.5,
                "observation.count": random.integers(-9, 9, (n, 2)).astype(np.int32),
                "next.reward": random.normal(size=(n, 1)).astype(np.float32),
            }
            top = random.integers(0, 256, (n, _SIZE[0] + e * varying, _SIZE[1], 3), dtype=np.uint8)
            depth = random.integers(0, 4000, (n, *_SIZE, 1)).astype(np.uint16)
            writer.add_episode(
                Episode(
                    f"take/{e}",
                    data,
                    {
                        IMAGE_PREFIX + "top": [encode_frame(frame, "png") for frame in top],
                        DEPTH_PREFIX + "top": [encode_frame(frame, "png") for frame in depth],
                    },
                    task=("stack the blocks", "öffne die Tür", "stack the blocks")[e],
                    success=(True, False, None)[e],
                    split=("train", "val", "")[e],
                    segments=[Segment(0, 2, "grasp", "grasp it"), Segment(2, n, "", "")] if e == 1 else [],
                )
            )
        writer.publish()
    return EpisodeStore.open(path)


def assert_same_store(found: EpisodeStore, expected: EpisodeStore) -> None:
    """Raise `AssertionError` unless a store came back whole.

    Compared are all numbers and pixels to the bit, features with their conventions, rate, robot, boundaries,
    names of episodes, instructions, success, split and segments; not the encoding of frames.
    """
    assert found.features == expected.features
    for name in expected.spec.low_dim:
        np.testing.assert_array_equal(found.column(name), expected.column(name), err_msg=name)
        assert found.column(name).dtype == expected.column(name).dtype
    steps = np.arange(expected.n_steps)
    for name in expected.spec.image_features:
        before, after = expected.images(name).decode(steps), found.images(name).decode(steps)
        np.testing.assert_array_equal(after, before, err_msg=name)
    np.testing.assert_array_equal(found.episode_ends, expected.episode_ends)
    for key in ("task_index", "success", "n_steps"):
        np.testing.assert_array_equal(found.episodes[key], expected.episodes[key], err_msg=key)
    for key in ("source_id", "split", "segments"):
        assert found.episodes[key] == expected.episodes[key]
    assert (found.tasks, found.fps, found.embodiment) == (expected.tasks, expected.fps, expected.embodiment)
