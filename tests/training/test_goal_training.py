"""Training with hindsight goals and instructions, from a store on disk to a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from robot_datasets.errors import DatasetError
from robot_datasets.goals import GoalSpec
from robot_policies.checkpoint import load_policy
from robot_policies.configuration import ConfigError
from robot_policies.spec import SpecError
from robot_policies.training import train as train_module
from robot_policies.training.config import DatasetConfig, WindowConfig
from robot_policies.training.data import open_data
from robot_policies.training.train import train

STATE = "observation.state"
POLICY = {"type": "regression", "network": {"type": "mlp", "width": 16, "n_blocks": 1}}


def goal_config(make_config: Callable[..., dict[str, Any]], output: str, **trainer: Any) -> dict[str, Any]:
    config = make_config(output, top={"policy": POLICY}, **trainer)
    config["dataset"] |= {"goal": {"features": [STATE], "n_steps": 2}, "instruction": True}
    return config


def test_a_checkpoint_knows_its_goal_and_needs_it(make_config):
    """Training, validation and the saved spec carry goals; a prediction without one is refused."""
    loaded = load_policy(train(goal_config(make_config, "run", steps=10)))
    spec = loaded.spec
    assert (list(spec.goal), spec.n_goal_steps, spec.instructed) == ([STATE], 2, True)
    observation = {STATE: torch.zeros(3, 2, 3)}
    goal = {STATE: torch.zeros(3, 2, 3), "task": ["push"] * 3}
    assert loaded.policy.predict_chunk(observation, goal=goal).actions.shape == (3, 8, 2)
    with pytest.raises(SpecError, match=r"goal 'observation\.state' is missing"):
        loaded.policy.predict_chunk(observation)


def test_a_continued_run_draws_the_goals_of_an_uninterrupted_one(make_config, monkeypatch):
    """Interrupted in the second epoch and continued: the same bits."""
    whole = train(goal_config(make_config, "whole", checkpoint_every=5))
    real, calls = train_module.train_step, iter(range(100))

    def stop_at_thirteen(*arguments: Any) -> dict[str, float]:
        if next(calls) == 13:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train_step", stop_at_thirteen)
        with pytest.raises(KeyboardInterrupt):
            train(goal_config(make_config, "parts", checkpoint_every=5))
    parts = train(goal_config(make_config, "parts", checkpoint_every=5))
    a, b = (
        safetensors.torch.load_file(folder / "checkpoints" / "last" / "policy.safetensors")
        for folder in (whole, parts)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def open_goals(path: Path, seed: int, **dataset: Any) -> Any:
    config = DatasetConfig(path=str(path), observation=(STATE,), goal=GoalSpec(features=(STATE,)), **dataset)
    return open_data(config, WindowConfig(n_obs_steps=2, horizon=8, n_action_steps=4), seed=seed)


def test_the_runs_seed_draws_the_goals(circle_store):
    """Two runs with one seed see the same goals, two seeds do not."""
    goals = [
        open_goals(circle_store, seed).train.__getitems__(np.arange(40))["goal." + STATE]
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(goals[0], goals[1])
    assert not np.array_equal(goals[0], goals[2])


def test_validation_has_goals_of_its_own_episodes(circle_store):
    """Held-out windows come with goals, too."""
    data = open_goals(circle_store, 0, val_ratio=0.25)
    assert data.validation.__getitems__([0, 1])["goal." + STATE].shape == (2, 1, 3)


def test_an_unknown_goal_feature_is_named(make_config):
    """The error says where it stands in the configuration."""
    config = make_config(top={"policy": POLICY})
    config["dataset"]["goal"] = {"features": ["observation.stat"]}
    with pytest.raises(DatasetError, match=r"dataset\.goal: .*did you mean 'observation\.state'"):
        train(config)


def test_an_unknown_key_of_the_goal_is_named(make_config):
    """Goals are validated like any other section."""
    config = make_config(top={"policy": POLICY})
    config["dataset"]["goal"] = {"features": [STATE], "distance": 3}
    with pytest.raises(ConfigError, match=r"train\.dataset\.goal: .*distance"):
        train(config)
