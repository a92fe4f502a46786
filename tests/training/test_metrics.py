"""Metrics, progress, seeding and validation."""

import json
import logging
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from robot_datasets.errors import UserError
from robot_policies.policy import ActionChunk
from robot_policies.training.metrics import Metrics, keep_lines_until
from robot_policies.training.progress import Progress, format_seconds, seconds_left
from robot_policies.training.seeding import mix_seed, seed_noise
from robot_policies.training.validation import action_errors, fixed_windows


def test_every_value_is_a_line_and_a_tensorboard_scalar(tmp_path):
    """JSONL and TensorBoard hold the same numbers."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Metrics(tmp_path, tensorboard=True) as metrics:
        metrics.log(5, "train", {"loss": 0.5})
        metrics.log(5, "validation", {"val/action_mse": 2.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 5, "kind": "train", "loss": 0.5},
        {"step": 5, "kind": "validation", "val/action_mse": 2.0},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {"train/loss": [(5, 0.5)], "val/action_mse": [(5, 2.0)]}


def test_lines_beyond_the_resumed_step_are_dropped(tmp_path):
    """What a killed process wrote after its last checkpoint, and the line it did not finish, go."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n{"step": 2')
    keep_lines_until(path, 10)
    assert path.read_text() == '{"step": 5}\n{"step": 10}\n'


def test_weights_and_biases_missing_is_one_clear_line(tmp_path, monkeypatch):
    """Asking for it without having it says what to install."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Metrics(tmp_path, wandb="project")


def test_progress_in_a_log_file_is_a_line_with_the_time_left(caplog, monkeypatch):
    """Without a terminal, one plain line per interval and no control characters."""
    now = [100.0]
    monkeypatch.setattr("robot_policies.training.progress.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(fraction=0.5, interval=10.0) as progress:
        for second in range(30):
            now[0] = 100.0 + second
            progress.update(0.5 + second / 100, second, {"loss": 0.25})
    assert [record.message for record in caplog.records] == [
        "step 5  55.0 %  loss 0.25  0:00:45 left",
        "step 15  65.0 %  loss 0.25  0:00:35 left",
        "step 25  75.0 %  loss 0.25  0:00:25 left",
    ]


def test_the_estimate_counts_from_where_this_process_took_over():
    """A resumed run does not credit the work of its predecessor."""
    assert seconds_left(0.5, 0.75, 100.0) == 100.0
    assert format_seconds(seconds_left(0.5, 0.5, 1.0)) == "?"
    assert format_seconds(4000) == "1:06:40"


def test_seeds_differ_in_every_part():
    """Steps, ranks and seeds have noise of their own, reproducibly."""
    seeds = {mix_seed(*parts) for parts in np.ndindex(20, 20, 20)}
    assert len(seeds) == 8000
    assert mix_seed(1, 2, 3) == mix_seed(1, 2, 3)
    assert all(0 <= s < 2**63 for s in seeds)
    seed_noise(torch.device("cpu"), 7, 3, 0)
    first = torch.randn(4)
    torch.randn(100)
    seed_noise(torch.device("cpu"), 7, 3, 0)
    assert torch.equal(torch.randn(4), first)


class OffByTwo:
    """A policy whose first action component is 2 too large, and whose noise is recorded."""

    def __init__(self) -> None:
        self.spec = type("Spec", (), {"observation": {"observation.state": None}, "has_goal": False})
        self.noise = []

    def predict_chunk(self, observation, *, goal=None, generator):
        self.noise.append(torch.rand(1, generator=generator).item())
        answer = observation["observation.state"][:, -1:, :2].repeat(1, 4, 1)
        return ActionChunk(actions=answer + torch.tensor([2.0, 0.0]), n_network_calls=1)


class Windows:
    """Actions equal to the state; the last step of each window is padding with absurd values."""

    def __len__(self) -> int:
        return 200

    def __getitems__(self, windows, draws=None):
        state = np.random.default_rng(0).normal(size=(200, 1, 3)).astype(np.float32)[windows]
        action = np.repeat(state[:, :, :2], 4, axis=1)
        is_pad = np.zeros((len(windows), 4), bool)
        action[:, 3], is_pad[:, 3] = 1e6, True
        return {"observation.state": state, "action": action, "action_is_pad": is_pad}


def test_action_errors_are_means_over_real_steps():
    """Padding does not count; the relative error divides by variance, and leaves constant components alone."""
    policy: Any = OffByTwo()
    for std, relative in (([4.0, 1.0], 0.125), ([0.0, 1.0], 2.0)):
        errors = action_errors(
            policy, Windows(), np.arange(150), action_std=np.array(std), seed=3, device=torch.device("cpu")
        )
        assert errors["action_mse"] == pytest.approx(2.0, rel=1e-4)  # (2^2 + 0) / 2
        assert errors["action_nmse"] == pytest.approx(relative, rel=1e-4)
    assert policy.noise[:3] == policy.noise[3:]
    assert len(set(policy.noise)) == 3


def test_validation_windows_are_fixed():
    """The subset depends on the seed alone, is sorted, and is everything if that is fewer."""
    chosen = fixed_windows(1000, 64, seed=1)
    assert chosen.tolist() == fixed_windows(1000, 64, seed=1).tolist()
    assert len(np.unique(chosen)) == 64
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() != fixed_windows(1000, 64, seed=2).tolist()
    assert fixed_windows(5, 64, seed=1).tolist() == [0, 1, 2, 3, 4]


def test_weights_and_biases_receives_the_same_numbers(tmp_path, monkeypatch):
    """The run is named after its folder, so that a resumed one continues its curves."""
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finish")

    def init(**options):
        calls.append(options)
        return Run()

    fake: Any = ModuleType("wandb")
    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Metrics(tmp_path, wandb="project", config={"seed": 1}) as metrics:
        metrics.log(5, "train", {"loss": 0.5})
    assert calls[0]["project"] == "project"
    assert calls[0]["id"] == tmp_path.name
    assert calls[0]["config"] == {"seed": 1}
    assert calls[1:] == [(5, {"train/loss": 0.5}), "finish"]


def test_a_disabled_sink_writes_nothing(tmp_path):
    """Processes other than the first leave no trace."""
    with Metrics(tmp_path, tensorboard=True, enabled=False) as metrics:
        metrics.log(5, "train", {"loss": 0.5})
    assert list(tmp_path.iterdir()) == []
