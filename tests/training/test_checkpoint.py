"""Checkpoints on disk: whole or absent, verified, and never code."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from robot_policies import checkpoint as checkpoint_module
from robot_policies.checkpoint import CheckpointError, load_policy, save_policy, write_tensors
from robot_policies.configuration import ConfigError
from robot_policies.training.checkpoints import Checkpoints
from robot_policies.training.config import TrainerConfig
from robot_policies.training.state import TrainState
from robot_policies.training.train import train

FILES = ("policy.safetensors", "config.yaml", "spec.json", "stats.json", "dataset_card.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, circle_store):
    """A short finished run."""
    config = {
        "dataset": {"path": str(circle_store), "observation": ["observation.state"], "val_ratio": 0.25},
        "window": {"n_obs_steps": 2, "horizon": 8, "n_action_steps": 4},
        "policy": {"type": "behaviour_cloning"},
        "trainer": {"steps": 4, "batch_size": 8, "val_windows": 8, "tensorboard": False, "val_every": 2},
        "output_dir": str(tmp_path_factory.mktemp("finished") / "run"),
        "device": "cpu",
    }
    return train(config)


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of its checkpoint, to be damaged."""
    return Path(shutil.copytree((finished / "checkpoints" / "last").resolve(), tmp_path / "checkpoint"))


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and its entry in the manifest, as a careless edit by a program would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"bytes": len(content), "sha256": checkpoint_module.file_sha256(folder / name)}
    manifest["files"][name] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_policy_comes_back_as_it_was_saved(finished, circle_store):
    """Weights, normaliser, spec, statistics, card and configuration survive; the best checkpoint is found."""
    loaded = load_policy(finished)
    assert loaded.path == (finished / "checkpoints" / "best").resolve()
    assert loaded.sha256 == checkpoint_module.file_sha256(loaded.path / "policy.safetensors")
    assert not loaded.policy.training
    assert loaded.spec.horizon == 8
    assert loaded.spec.fps == 10
    assert loaded.stats["action"]["max"].shape == (2,)
    assert loaded.dataset_card["episodes"] == 4
    assert (
        loaded.dataset_card["validation_episodes"] == [0]
        or len(loaded.dataset_card["validation_episodes"]) == 1
    )
    assert loaded.config["policy"] == {"type": "behaviour_cloning"}
    observation = {"observation.state": torch.zeros(2, 2, 3)}
    again = load_policy(loaded.path).policy.predict_chunk(observation).actions
    assert torch.equal(loaded.policy.predict_chunk(observation).actions, again)
    # The normaliser maps the largest action to 1: it came with the weights, not from the statistics file.
    top = torch.as_tensor(loaded.stats["action"]["max"], dtype=torch.float32)
    policy: Any = loaded.policy
    torch.testing.assert_close(policy.normalizer["action"].normalize(top), torch.ones(2))


def test_the_statistics_are_those_of_training_episodes_only(finished, circle_store):
    """Held-out episodes do not leak into the normaliser."""
    from robot_datasets.store import EpisodeStore

    loaded = load_policy(finished)
    store = EpisodeStore.open(circle_store)
    held_out = loaded.dataset_card["validation_episodes"]
    train_episodes = [e for e in range(4) if e not in held_out]
    expected = store.stats("action", episodes=train_episodes)
    np.testing.assert_array_equal(loaded.stats["action"]["mean"], expected.mean)
    assert not np.array_equal(expected.mean, store.stats("action").mean)


def test_no_file_of_a_run_is_a_pickle(finished):
    """Every file of the checkpoint is safetensors, JSON or YAML."""
    files = [p for p in (finished / "checkpoints").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".safetensors", ".json", ".yaml"}
    assert len(files) >= 9


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(copy, name):
    """Losing the end of any file is noticed before anything is built from it."""
    path = copy / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=rf"{name} has \d+ bytes, expected \d+; it is truncated"):
        load_policy(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed(copy, name):
    """A change that keeps the size does not match the checksum."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} does not match its checksum"):
        load_policy(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    """An incomplete copy is recognised."""
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_policy(copy)


def test_weights_of_another_spec_do_not_load(copy):
    """A spec that does not belong to the weights ends in one line that says which tensor differs."""
    spec = json.loads((copy / "spec.json").read_text())
    spec["n_obs_steps"] = 1
    rewrite(copy, "spec.json", json.dumps(spec).encode())
    with pytest.raises(
        CheckpointError, match=r"'layer.weight' has shape \(16, 6\), the policy expects \(16, 3\)"
    ):
        load_policy(copy)


def test_a_spec_that_is_none_is_named(copy):
    """A spec without its fields is not a spec."""
    rewrite(copy, "spec.json", b"{}")
    with pytest.raises(CheckpointError, match=r"spec\.json is not a policy spec"):
        load_policy(copy)


def test_a_policy_type_of_the_future_is_named(copy):
    """An unknown type lists what this version knows."""
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["policy"] = {"type": "telepathy"}
    rewrite(copy, "config.yaml", yaml.safe_dump(config).encode())
    with pytest.raises(ConfigError, match="unknown policy 'telepathy'"):
        load_policy(copy)


def test_yaml_that_would_run_code_is_refused(copy):
    """A Python tag in the configuration is an error, not a call."""
    rewrite(copy, "config.yaml", b"!!python/object/apply:os.system ['touch pwned']")
    with pytest.raises(CheckpointError, match=r"config\.yaml cannot be read"):
        load_policy(copy)


@pytest.mark.parametrize(("path", "message"), [("nowhere", "does not exist"), (".", "holds no checkpoint")])
def test_a_path_without_a_checkpoint_is_named(tmp_path, path, message):
    """A wrong path says what was expected there."""
    with pytest.raises(CheckpointError, match=message):
        load_policy(tmp_path / path)


def test_another_format_is_refused(copy):
    """A manifest of a later format asks for an update."""
    (copy / "manifest.json").write_text('{"format": 2, "files": {}}')
    with pytest.raises(CheckpointError, match="has format 2, expected 1"):
        load_policy(copy)


def test_a_failed_save_leaves_nothing_under_its_name(finished, tmp_path, monkeypatch):
    """If writing stops half-way, the checkpoint does not exist, and saving again works."""
    loaded = load_policy(finished)

    def save():
        return save_policy(
            tmp_path / "c",
            loaded.policy,
            config=loaded.config,
            stats=loaded.stats,
            dataset_card=loaded.dataset_card,
        )

    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint_module.os, "rename", lambda *args: (_ for _ in ()).throw(OSError("no space"))
        )
        with pytest.raises(OSError, match="no space"):
            save()
    assert not (tmp_path / "c").exists()
    assert load_policy(save()).sha256 == loaded.sha256
    with pytest.raises(CheckpointError, match="exists; expected a new directory"):
        save()


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    """Tied weights are legal in a policy and must be in its file."""
    base = torch.arange(6.0)
    write_tensors(tmp_path / "t.safetensors", {"a": base, "b": base, "c": base[2:4]})
    loaded = safetensors.torch.load_file(tmp_path / "t.safetensors")
    assert loaded["a"].tolist() == loaded["b"].tolist() == base.tolist()
    assert loaded["c"].tolist() == [2, 3]


def test_the_best_and_the_last_are_kept(finished, tmp_path):
    """Of errors 5 3 4 1 2 with two kept: steps 4 and 5 stay; only the last has a trainer folder."""
    loaded = load_policy(finished)
    state = TrainState.create(loaded.policy.train().requires_grad_(True), TrainerConfig())
    checkpoints = Checkpoints(
        tmp_path, keep_top_k=2, config=loaded.config, stats=loaded.stats, card=loaded.dataset_card
    )
    kept = []
    for step, error in enumerate((5.0, 3.0, 4.0, 1.0, 2.0, None), start=1):
        state.step = step
        checkpoints.save(state, error)
        kept.append(sorted(p.name for p in checkpoints.folder.glob("step_*")))
    assert kept == [
        ["step_0000001"],
        ["step_0000001", "step_0000002"],
        ["step_0000002", "step_0000003"],
        ["step_0000002", "step_0000004"],
        ["step_0000004", "step_0000005"],
        ["step_0000004", "step_0000005", "step_0000006"],
    ]
    assert (checkpoints.folder / "best").resolve().name == "step_0000004"
    assert (checkpoints.folder / "last").resolve().name == "step_0000006"
    assert [p.parent.name for p in sorted(checkpoints.folder.glob("step_*/trainer"))] == ["step_0000006"]
    assert load_policy(tmp_path).path.name == "step_0000004"
