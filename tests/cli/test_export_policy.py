"""The export-policy command: a checkpoint on disk to a folder that runs, and bad input in one line."""

import json
from pathlib import Path

import pytest

from robot_policies.checkpoint import save_policy
from robot_policies.cli.main import main
from robot_policies.policies import build_policy
from robot_policies.testing import example_spec, example_stats


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small policy with random weights."""
    config = {
        "type": "diffusion", "network": {"type": "mlp", "width": 16, "n_blocks": 1}, "process": {"type": "edm"},
        "sampler": {"type": "ddim", "steps": 2},
    }  # fmt: skip
    spec = example_spec()
    policy = build_policy(config, spec, example_stats(spec))
    return save_policy(
        tmp_path / "run", policy, config={"policy": config}, stats=example_stats(spec), dataset_card={}
    )


def test_a_checkpoint_becomes_a_folder(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The sampler asked for is in the folder, and the difference to the checkpoint is said."""
    out = tmp_path / "out"
    arguments = ["--format", "torchscript", "--sampler", "heun", "--sampler-option", "steps=3", "--json"]
    assert main(["export-policy", str(checkpoint), str(out), *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["largest_error"]["torchscript"] < 1e-4
    assert len(json.loads((out / "schedule.json").read_text())["calls"]) == 5
    assert main(["export-policy", str(checkpoint), str(out), *arguments]) == 2
    assert "choose a new folder" in capsys.readouterr().err


def test_bad_input_is_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No checkpoint, and a sampler that does not exist."""
    assert main(["export-policy", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["export-policy", str(checkpoint), str(tmp_path / "out"), "--sampler", "dimm"]) == 2
    assert "did you mean 'ddim'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
