"""Mixtures with selections of windows, pooled statistics, and videos without actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_datasets.errors import DatasetError
from robot_datasets.mixture import BLOCK
from robot_datasets.selection import Selection
from robot_datasets.store import EpisodeStore
from robot_policies.checkpoint import load_policy
from robot_policies.configuration import ConfigError, from_mapping
from robot_policies.training.config import DatasetConfig, WindowConfig
from robot_policies.training.data import TrainingData, open_data
from robot_policies.training.train import train

WINDOW = WindowConfig(n_obs_steps=2, horizon=8, n_action_steps=4)
TOP = "observation.images.top"


def opened(**values: Any) -> TrainingData:
    return open_data(from_mapping(DatasetConfig, {"val_ratio": 0.0, **values}, where="dataset"), WINDOW)


@pytest.fixture
def selected(
    store_writer: Any, circle_store: Path, tmp_path: Path
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """A mixture of the circle and a second store, of which every fourth step is selected."""
    other = store_writer(tmp_path / "other.zarr", lengths=(30, 22))
    store = EpisodeStore.open(other)
    weights = (np.arange(store.n_steps) % 4 == 0).astype(np.float32)
    file = tmp_path / "selection.npz"
    Selection(fingerprint=store.fingerprint, weights=weights, distances=1 - weights).save(file)
    return [{"path": str(circle_store)}, {"path": str(other), "selection": str(file)}], weights


def test_only_selected_windows_are_drawn_and_the_shares_hold(selected: Any) -> None:
    """Half of the samples come from the second store, and their "now" is a selected step."""
    mixture, weights = selected
    data = opened(mixture=mixture, statistics="pooled")
    assert data.order is not None
    samples = data.order.samples(np.arange(BLOCK))
    batch = data.train.__getitems__(samples[:400])
    assert abs((batch["dataset_index"] == 0).sum() - 200) < 60
    first = len(opened(path=mixture[0]["path"]).train)
    assert (samples >= first).sum() == BLOCK // 2
    store = EpisodeStore.open(mixture[1]["path"])
    states = store.column("observation.state")
    now = batch["observation.state"][batch["dataset_index"] == 1][:, -1]
    steps = [int(np.flatnonzero((states == row).all(axis=1))[0]) for row in now]
    assert set(steps) <= set(np.flatnonzero(weights).tolist())
    assert len(set(steps)) > 5


def test_pooled_statistics_leave_the_numbers_alone(selected: Any) -> None:
    """Extremes and moments are those of all steps of both stores, and no store is rescaled."""
    mixture, _ = selected
    data = opened(mixture=mixture, statistics="pooled")
    stores = [EpisodeStore.open(source["path"]) for source in mixture]
    actions = np.concatenate([store.column("action") for store in stores]).astype(np.float64)
    stats = data.stats["action"]
    np.testing.assert_allclose(stats["min"], actions.min(axis=0))
    np.testing.assert_allclose(stats["max"], actions.max(axis=0))
    np.testing.assert_allclose(stats["mean"], actions.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(stats["std"], actions.std(axis=0), atol=1e-4)
    batch = data.train.__getitems__(np.arange(len(data.train) - 3, len(data.train)))
    assert batch["dataset_index"].tolist() == [1, 1, 1]
    known = {tuple(row) for row in stores[1].column("action").tolist()}
    assert {tuple(row) for row in batch["action"].reshape(-1, 2).tolist()} <= known


def test_a_selection_of_one_store_alone_works(selected: Any) -> None:
    """A mixture of a single store with a selection is a selected subset, not the whole store."""
    mixture, weights = selected
    data = opened(mixture=mixture[1:])
    assert data.order is not None
    assert len(np.unique(data.order.samples(np.arange(2000)))) <= weights.sum()


def test_a_selection_of_another_store_is_refused(selected: Any) -> None:
    """Mixing up files is an error that names both."""
    mixture, _ = selected
    swapped = [{**mixture[0], "selection": mixture[1]["selection"]}, mixture[1]]
    with pytest.raises(DatasetError, match="made for another store"):
        opened(mixture=swapped)


@pytest.fixture
def videos(store_writer: Any, tmp_path: Path) -> list[dict[str, Any]]:
    """A store with a camera and actions, and one whose actions are not to be read."""
    first = store_writer(tmp_path / "robot.zarr", camera=True)
    second = store_writer(tmp_path / "video.zarr", lengths=(15, 26), camera=True)
    return [{"path": str(first)}, {"path": str(second), "actions": False}]


def test_a_video_has_frames_but_no_actions(videos: Any) -> None:
    """Its rows are marked, its actions are zeros; the other store's rows are as they were."""
    data = opened(mixture=videos, observation=["observation.state", TOP], future={TOP: [1, 4]})
    assert data.spec.future == {TOP: (1, 4)}
    batch = data.train.__getitems__([0, len(data.train) - 1])
    assert batch["action_is_valid"].tolist() == [[True, True], [False, False]]
    assert (batch["action"][1] == 0).all()
    assert (batch["action"][0] != 0).any()
    assert batch[f"future.{TOP}"].shape == (2, 2, 3, 16, 16)
    assert batch[f"future.{TOP}_is_pad"][1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"future": {}}, "teaches frames only"),
        ({"mixture": [{"path": "a", "actions": False}]}, "first store needs actions"),
        ({"statistics": "pooled", "layout": "shared"}, "normalised by their own"),
        ({"future": {"observation.images.tpo": [1]}}, "did you mean 'observation.images.top'"),
    ],
)
def test_impossible_mixtures_are_explained(videos: Any, change: dict, message: str) -> None:
    """Each names the option."""
    values = {"mixture": videos, "observation": ["observation.state", TOP], "future": {TOP: [1]}}
    with pytest.raises((ConfigError, DatasetError), match=message):
        opened(**{**values, **change})


def test_pad_trains_on_robot_and_video_and_its_checkpoint_predicts_frames(
    videos: Any, tmp_path: Path
) -> None:
    """Two steps through the ordinary trainer; what it predicts, and when, survives the checkpoint."""
    run = train(
        {
            "dataset": {
                "mixture": videos,
                "observation": ["observation.state", TOP],
                "future": {TOP: [2, 4]},
                "val_ratio": 0.3,
            },
            "window": {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4},
            "policy": {
                "type": "pad",
                "network": {"type": "dit", "width": 16, "n_layers": 1, "n_heads": 2},
                "codec": {"type": "pixels", "size": 8},
                "process": {"type": "flow"},
            },
            "sampler": {"type": "ddim", "steps": 2},
            "trainer": {"steps": 2, "batch_size": 8, "val_every": 2, "tensorboard": False, "threads": 1},
            "device": "cpu",
            "output_dir": str(tmp_path / "run"),
        }
    )
    loaded = load_policy(run)
    assert loaded.spec.future == {TOP: (2, 4)}
    data = opened(path=videos[0]["path"], observation=["observation.state", TOP])
    batch = data.train.__getitems__([0, 1])
    import torch

    observation = {
        name: torch.from_numpy(np.ascontiguousarray(batch[name])) for name in loaded.spec.observation
    }
    frames = loaded.policy.predict_chunk(observation).predicted_frames
    assert frames is not None
    assert frames.frames[TOP].shape == (2, 2, 3, 8, 8)
