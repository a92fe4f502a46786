"""Training on chosen segments: which windows are drawn, which actions count, and starting from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robot_datasets.episode import Episode, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.segments import ACTION_COUNTS, steps_in_segments
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter
from robot_policies.checkpoint import load_policy
from robot_policies.configuration import ConfigError, from_mapping
from robot_policies.policies import build_policy
from robot_policies.testing import example_batch, example_spec, example_stats
from robot_policies.training.config import DatasetConfig, WindowConfig
from robot_policies.training.data import TrainingData, open_data
from robot_policies.training.train import train

WINDOW = WindowConfig(n_obs_steps=2, horizon=8, n_action_steps=4)
SEGMENTS = (
    [Segment(0, 10, "policy"), Segment(10, 16, "recovery"), Segment(16, 24, "correction")],
    [Segment(0, 20, "policy")],
)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two episodes; in the first one a person stepped in. Every number is the step's own, in the whole store."""
    features = {
        "observation.state": Feature(dtype="float32", shape=(3,)),
        "action": Feature(dtype="float32", shape=(2,)),
    }
    step = 0
    with EpisodeStoreWriter(
        tmp_path / "recorded.zarr", features=features, fps=10, embodiment="point"
    ) as writer:
        for number, (length, segments) in enumerate(zip((24, 20), SEGMENTS, strict=True)):
            steps = np.arange(step, step + length, dtype=np.float32)[:, None]
            data = {"observation.state": np.tile(steps, 3), "action": np.tile(steps, 2)}
            writer.add_episode(Episode(f"e{number}", data, segments=list(segments)))
            step += length
        writer.publish()
    return tmp_path / "recorded.zarr"


def opened(**values: Any) -> TrainingData:
    values = {"val_ratio": 0.0, "statistics": "pooled", **values}
    return open_data(from_mapping(DatasetConfig, values, where="dataset"), WINDOW)


def test_windows_are_drawn_inside_and_actions_outside_do_not_count(recorded: Path):
    """Every "now" lies in a person's segment; the mask says of each action whether its step does, too."""
    data = opened(mixture=[{"path": str(recorded), "segments": ["recovery", "correction"]}])
    assert data.order is not None
    batch = data.train.__getitems__(data.order.samples(np.arange(200)))
    now = batch["observation.state"][:, -1, 0]
    assert set(now.astype(int)) == set(range(10, 21))  # the last "now" of 24 steps is 24 - 8 + 2 + 4 - 2
    inside = (batch["action"][:, :, 0] >= 10) & (batch["action"][:, :, 0] < 24)
    np.testing.assert_array_equal(batch[ACTION_COUNTS], inside)
    assert not inside.all()


def test_the_other_stores_of_a_mixture_count_whole(recorded: Path, circle_store: Path):
    """A batch has the mask for every row; rows of a store without chosen segments count in full."""
    data = opened(mixture=[{"path": str(circle_store)}, {"path": str(recorded), "segments": ["correction"]}])
    assert data.order is not None
    batch = data.train.__getitems__(data.order.samples(np.arange(300)))
    first = batch["dataset_index"] == 0
    assert batch[ACTION_COUNTS][first].all()
    assert not batch[ACTION_COUNTS][~first].all()


def test_masked_actions_do_not_reach_the_loss():
    """Whatever stands in the steps that do not count, loss and gradients are the same."""
    spec = example_spec()
    config = {
        "type": "regression",
        "network": {"type": "mlp", "width": 32, "n_blocks": 1},
    }
    policy = build_policy(config, spec, example_stats(spec)).eval()
    batch = example_batch(spec)
    counts = torch.arange(spec.horizon) < 5
    batch[ACTION_COUNTS] = counts.expand(6, -1)
    other = {**batch, "action": torch.where(counts[:, None], batch["action"], batch["action"] + 7.0)}
    torch.testing.assert_close(policy.compute_loss(batch).loss, policy.compute_loss(other).loss)
    del batch[ACTION_COUNTS], other[ACTION_COUNTS]
    assert policy.compute_loss(batch).loss != policy.compute_loss(other).loss


def test_unknown_tags_and_empty_choices_are_refused(recorded: Path):
    """A tag that occurs nowhere is named with those that do; so is a store without any window left."""
    with pytest.raises(DatasetError, match="tagged corection; there is correction, policy, recovery"):
        steps_in_segments(EpisodeStore.open(recorded), ["corection"])
    with pytest.raises(DatasetError, match="no window of the training episodes"):
        opened(
            mixture=[{"path": str(recorded), "segments": ["correction"]}], max_train_episodes=1, split_seed=0
        )


def test_fine_tuning_starts_from_the_checkpoint_and_masks(recorded: Path, circle_store: Path, tmp_path: Path):
    """A run on chosen segments begins with another run's weights and normaliser, and trains on."""
    common = {
        "policy": {"type": "regression", "network": {"type": "mlp", "width": 32, "n_blocks": 1}},
        "window": {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4},
        "device": "cpu",
    }
    short = {"steps": 2, "batch_size": 8, "val_every": 0, "tensorboard": False, "log_every": 1}
    base = train(
        {
            **common,
            "dataset": {"path": str(circle_store)},
            "trainer": short,
            "output_dir": str(tmp_path / "a"),
        }
    )
    mixture = [{"path": str(circle_store)}, {"path": str(recorded), "segments": ["recovery", "correction"]}]
    tuning = {
        **common,
        "dataset": {"mixture": mixture, "statistics": "pooled", "val_ratio": 0.0},
        "init_from": str(base),
        "trainer": {**short, "lr": 1e-12},
        "output_dir": str(tmp_path / "b"),
    }
    tuned = train(tuning)
    before, after = load_policy(base).policy.state_dict(), load_policy(tuned).policy.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-9, rtol=0)
    with pytest.raises(ConfigError, match="trained with another"):
        train({**tuning, "window": {**common["window"], "horizon": 12}, "output_dir": str(tmp_path / "c")})
