"""Windows of a real store on disk, images included."""

import numpy as np
import pytest

from robot_datasets.episode import Episode
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_datasets.windows import WindowDataset, WindowSpec

TOP = "observation.images.top"


@pytest.fixture
def store(tmp_path):
    """Three episodes with a raw camera of 4 x 6 pixels."""
    rng = np.random.default_rng(0)
    features = {
        "observation.state": Feature(dtype="float32", shape=(2,)),
        "action": Feature(dtype="float32", shape=(1,)),
        TOP: Feature(dtype="uint8", shape=(4, 6, 3)),
    }
    encoding = {TOP: "raw"}
    with EpisodeStoreWriter(
        tmp_path / "s.zarr", features=features, fps=10, embodiment="test", image_encodings=encoding
    ) as writer:
        for i, length in enumerate((7, 12, 9)):
            frames = rng.integers(0, 255, (length, 4, 6, 3), dtype=np.uint8)
            data = {
                "observation.state": rng.normal(size=(length, 2)).astype(np.float32),
                "action": rng.normal(size=(length, 1)).astype(np.float32),
            }
            task = ("push", "lift", "push")[i]
            writer.add_episode(Episode(f"e{i}", data, {TOP: [f.tobytes() for f in frames]}, task=task))
        writer.publish()
    return EpisodeStore.open(tmp_path / "s.zarr")


def test_windows_of_a_store_hold_its_columns_frames_and_instructions(store):
    """The first window of the second episode repeats its first step as the earlier observation."""
    dataset = WindowDataset(
        store,
        WindowSpec(2, 8, 4),
        observation=["observation.state", TOP],
        episodes=np.array([1]),
        with_task=True,
    )
    batch = dataset.__getitems__([0, 1])
    np.testing.assert_array_equal(batch["observation.state"][0], store.column("observation.state")[[7, 7]])
    np.testing.assert_array_equal(batch["action"][1], store.column("action")[7:15])
    expected = store.images(TOP).decode(np.array([7, 8])).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch[TOP][1], expected)
    assert batch["action_is_pad"].tolist() == [[True] + 7 * [False], 8 * [False]]
    assert batch["task"] == ["lift", "lift"]


def test_frames_ahead_are_those_of_the_same_episode(store):
    """Offsets count from now; beyond the episode's end its last frame stands in and is flagged."""
    dataset = WindowDataset(
        store, WindowSpec(2, 4, 2), observation=["observation.state"], future={TOP: [1, 3]}
    )
    images = store.images(TOP)
    ends = store.episode_ends
    for number in range(len(dataset)):
        batch = dataset.__getitems__([number])
        now, last = dataset.index.now_and_last(np.array([number]))
        assert last[0] == ends[dataset.index.episode(np.array([number]))[0]] - 1
        wanted = now[0] + np.array([1, 3])
        frames = images.decode(np.minimum(wanted, last[0])).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(batch[f"future.{TOP}"][0], frames)
        assert batch[f"future.{TOP}_is_pad"][0].tolist() == (wanted > last[0]).tolist()
        assert TOP not in batch


@pytest.mark.parametrize(
    ("future", "message"),
    [
        ({"observation.images.tpo": [1]}, "did you mean"),
        ({"observation.state": [1]}, "is no camera"),
        ({TOP: []}, "expected growing steps"),
        ({TOP: [0, 1]}, "expected growing steps"),
        ({TOP: [2, 2]}, "expected growing steps"),
    ],
)
def test_impossible_frames_ahead_are_refused(store, future, message):
    """A camera that is not there, something else than a camera, and steps that are not ahead."""
    with pytest.raises(DatasetError, match=message):
        WindowDataset(store, WindowSpec(2, 4, 2), observation=["observation.state"], future=future)
