"""The training loop as a whole, on a policy of one layer."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from robot_datasets.errors import DatasetError, UserError
from robot_policies.checkpoint import load_policy
from robot_policies.configuration import ConfigError
from robot_policies.policies import build_policy
from robot_policies.training import train as train_module
from robot_policies.training.train import TrainingDiverged, train


def read_lines(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def weights(folder):
    """Learning and averaged weights of a run's last checkpoint."""
    last = folder / "checkpoints" / "last"
    return (last / "trainer" / "state.safetensors").read_bytes(), (last / "policy.safetensors").read_bytes()


def test_losses_of_the_first_twenty_steps(make_config):
    """Golden losses: data order, noise, optimiser and schedule have not changed by accident."""
    folder = train(make_config(log_every=1, steps=20))
    losses = [line["loss"] for line in read_lines(folder, "train")]
    assert len(losses) == 20
    np.testing.assert_allclose(losses[::5], [0.753775, 0.602748, 0.441915, 0.319298], rtol=1e-3)


def test_training_lowers_the_error_of_held_out_actions(make_config):
    """Validation by sampled actions falls well below that of the mean action."""
    folder = train(make_config(steps=100, val_every=4, checkpoint_every=100))
    errors = [line["val/action_nmse"] for line in read_lines(folder, "validation")]
    assert len(errors) == 25
    assert errors[-1] < 0.05
    assert errors[0] > 0.5


def test_the_saved_policy_is_the_average_of_the_weights(make_config, monkeypatch):
    """Every step enters the average once, with the decay of its number."""
    history = []
    real = train_module.TrainState.add

    def add(state, values):
        history.append(state.policy.state_dict()["layer.weight"].clone())
        real(state, values)

    monkeypatch.setattr(train_module.TrainState, "add", add)
    saved = load_policy(train(make_config(val_every=0))).policy.state_dict()["layer.weight"]
    average = history[0]
    for n, value in enumerate(history[1:], start=1):
        average = value.lerp(average, 1 - (1 + n) ** -0.75)
    assert len(history) == 20
    torch.testing.assert_close(saved, average)
    assert not torch.equal(saved, history[-1])


def test_a_run_directory_says_what_was_run(make_config):
    """Configuration, command, environment, metrics and checkpoints are there and readable."""
    folder = train(make_config(tensorboard=True))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["trainer"]["steps"] == 20
    assert config["trainer"]["ema_power"] == 0.75  # a default, resolved
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert (folder / "command.txt").read_text().strip()
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "checkpoints" / "best" / "policy.safetensors").exists()


def test_the_same_run_twice_ends_in_the_same_bits(make_config):
    """Two fresh runs with one seed agree bit by bit; another seed does not."""
    first, second = weights(train(make_config("a"))), weights(train(make_config("b")))
    other = weights(train(make_config("c", top={"seed": 1})))
    assert first == second
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_accumulated_micro_batches_equal_one_large_batch(make_config):
    """Two micro-batches of 8 give the gradients of one batch of 16 (without noise)."""
    quiet = {"policy": {"type": "behaviour_cloning"}}
    runs = [
        train(make_config("small", top=quiet, batch_size=8, accumulate=2)),
        train(make_config("large", top=quiet, batch_size=16)),
    ]
    small, large = (load_policy(run / "checkpoints" / "last").policy.state_dict() for run in runs)
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"prefetch": 2}, {"val_every": 7, "log_every": 3}, {"checkpoint_every": 3}]
)
def test_bookkeeping_does_not_change_what_is_learned(make_config, options):
    """Reading ahead, validating, logging and saving at other steps leave the weights alone."""
    plain, other = (
        safetensors.torch.load(weights(run)[1])
        for run in (train(make_config("a")), train(make_config("b", **options)))
    )
    for name, value in plain.items():
        assert torch.equal(other[name], value)


def test_bfloat16_trains(make_config):
    """Autocast leaves weights in float32 and still learns."""
    folder = train(make_config(precision="bf16", steps=100, val_every=0))
    losses = [line["loss"] for line in read_lines(folder, "train")]
    assert losses[-1] < 0.5 * losses[0]
    policy = load_policy(folder).policy
    assert {p.dtype for p in policy.parameters()} == {torch.float32}


def test_a_cpu_time_budget_ends_the_run(make_config):
    """The run stops when the CPU time is spent, and its learning rate has decayed to 0 by then."""
    folder = train(
        make_config(
            schedule_by="cpu_time", time_budget_cpu_minutes=0.4 / 60, val_every=0, checkpoint_every=10**6
        )
    )
    last = read_lines(folder, "train")[-1]
    assert 0.4 <= last["cpu_seconds"] < 1.0
    assert last["lr"] < 1e-2 * 0.01


def test_validation_is_not_charged_to_the_budget(make_config, monkeypatch):
    """CPU time spent in validation does not appear in cpu_seconds."""
    real = train_module.action_errors

    def slow(*args, **kwargs):
        start = train_module.Stopwatch()
        while start.read()[0] < 0.1:
            pass
        return real(*args, **kwargs)

    monkeypatch.setattr(train_module, "action_errors", slow)
    train(make_config("first", steps=1))  # what torch loads at the first step is charged to somebody
    folder = train(make_config(steps=10, val_every=1, checkpoint_every=10))
    assert read_lines(folder, "train")[-1]["cpu_seconds"] < 1.0  # ten validations of 0.2 s would be 2 s


def test_images_reach_the_policy_and_a_sheet_is_written(make_config, store_writer, tmp_path):
    """With a camera, the first batch is written as a picture and training runs."""
    store = store_writer(tmp_path / "camera.zarr", camera=True)
    names = ["observation.state", "observation.images.top"]
    policy = {
        "type": "diffusion",
        "network": {"type": "mlp", "width": 16, "n_blocks": 1},
        "process": {"type": "edm"},
        "sampler": {"type": "ddim", "steps": 2},
        "image_encoder": {"type": "resnet", "stage_channels": [16], "blocks_per_stage": 1},
    }
    top = {"dataset": {"path": str(store), "observation": names, "val_ratio": 0}, "policy": policy}
    folder = train(make_config(top=top, steps=2, val_every=0, batch_size=4))
    assert (folder / "first_batch.png").read_bytes().startswith(b"\x89PNG")
    assert load_policy(folder).spec.observation["observation.images.top"].shape == (16, 16, 3)


def test_a_mixture_trains_on_both_stores(make_config, store_writer, circle_store, tmp_path):
    """A second store joins with a weight; the card names both, and the spec is the first one's."""
    other = store_writer(tmp_path / "other.zarr", lengths=(22, 30))
    mixture = [{"path": str(circle_store), "weight": 3.0}, {"path": str(other)}]
    dataset = {"mixture": mixture, "observation": ["observation.state"], "val_ratio": 0.25}
    folder = train(make_config(top={"dataset": dataset}))
    card = load_policy(folder).dataset_card
    assert [part["name"] for part in card["mixture"]] == ["circle.zarr", "other.zarr"]
    assert [part["weight"] for part in card["mixture"]] == [3.0, 1.0]


def test_not_a_number_in_the_loss_stops_with_the_step(make_config, monkeypatch):
    """Training stops with one clear error, and the checkpoint of before remains loadable."""
    real = train_module.seed_noise

    def poison(device, *parts):
        real(device, *parts)
        if len(parts) == 3 and parts[1] == 14:
            poisoned.layer.weight.data.fill_(float("nan"))

    def build(*args):
        nonlocal poisoned
        poisoned = build_policy(*args)
        return poisoned

    poisoned: Any = None
    monkeypatch.setattr(train_module, "seed_noise", poison)
    monkeypatch.setattr(train_module, "build_policy", build)
    config = make_config()
    with pytest.raises(TrainingDiverged, match=r"step 14, seed 0: loss nan"):
        train(config)
    assert load_policy(config["output_dir"]).path.name == "step_0000010"


@pytest.mark.parametrize(
    ("top", "error", "message"),
    [
        ({"policy": {"type": "behaviour_clonin"}}, ConfigError, "did you mean 'behaviour_cloning'"),
        ({"windows": {}}, ConfigError, "did you mean 'window'"),
        ({"device": "cuda:7"}, UserError, r"'cuda:7' is not there, torch sees \d GPU"),
        ({"device": "tpu"}, UserError, "unknown device 'tpu'"),
        ({"window": {"horizon": 64}}, DatasetError, "none of the 3 episodes is long enough"),
        ({"window": {"horizon": 8, "n_action_steps": 9}}, UserError, "n_action_steps=9 exceeds"),
        ({"seed": -1}, ConfigError, "seed: expected 0 <="),
    ],
)
def test_what_does_not_fit_ends_in_one_clear_line(make_config, tmp_path, top, error, message):
    """Each mistake is named, and nothing is written."""
    with pytest.raises(error, match=message) as caught:
        train(make_config(top=top))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_misspelt_observation_names_the_nearest_feature(make_config, circle_store):
    """The store's features are listed, nearest first."""
    dataset = {"path": str(circle_store), "observation": ["observation.stat"]}
    with pytest.raises(
        DatasetError, match=r"circle\.zarr: unknown feature .* did you mean 'observation\.state'"
    ):
        train(make_config(top={"dataset": dataset}))


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"steps": 0}, "trainer.steps: expected > 0"),
        ({"lr": -1.0}, "trainer.lr: expected > 0"),
        ({"betas": [0.9]}, "trainer.betas: expected two numbers"),
        ({"betas": [0.9, 1.0]}, "trainer.betas: expected two numbers"),
        ({"precision": "fp16"}, "trainer.precision: unknown value 'fp16'"),
        ({"schedule_by": "cpu_time"}, "needs time_budget_cpu_minutes"),
        ({"warmup_fraction": 1.0}, "trainer.warmup_fraction"),
        ({"ema_max": 1.0}, "trainer.ema_max"),
        ({"val_every": -1}, "trainer.val_every: expected >= 0"),
        ({"stepz": 3}, "did you mean 'steps'"),
    ],
)
def test_trainer_values_out_of_range_are_refused(make_config, trainer, message):
    """Every bad value is named with its rule."""
    with pytest.raises(ConfigError, match=message):
        train(make_config(**trainer))


def test_actions_that_are_not_numbers_stop_before_training(make_config):
    """NaN in the data of a store that did not check them is found before the first step."""
    from robot_datasets.store import EpisodeStore

    def open_poisoned(path):
        store: Any = EpisodeStore.open(path)
        actions = store.column("action").copy()
        actions[25, 0] = np.nan
        store.column = {"action": actions, "observation.state": store.column("observation.state")}.__getitem__
        return store

    with pytest.raises(DatasetError, match="'action' is not finite at step 5 of episode 1"):
        train(make_config(), open_store=open_poisoned)
