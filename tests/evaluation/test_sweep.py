"""A sweep is many evaluations on the same seeds, and one page."""

import json

import numpy as np
import pytest

from robot_policies.checkpoint import save_policy
from robot_policies.cli.main import main
from robot_policies.evaluation.point_mass import FPS, POSITION, VELOCITY
from robot_policies.policies import build_policy
from robot_policies.spec import PolicySpec
from robot_sim import registry
from robot_sim.registry import TaskEntry, register_task

POLICY = {
    "type": "diffusion",
    "network": {"type": "mlp", "width": 16, "n_blocks": 1},
    "process": {"type": "edm"},
    "normalization": {"default": "min_max"},
}
SAMPLER = {"type": "ddim", "steps": 2}


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A run with an untrained policy for the point mass."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    register_task("point_mass", TaskEntry(module="robot_policies.evaluation.point_mass"))
    spec = PolicySpec(
        observation={"observation.state": POSITION}, action=VELOCITY,
        n_obs_steps=2, horizon=6, n_action_steps=4, fps=FPS,
    )  # fmt: skip
    stats = {
        name: {"min": np.full(f.shape, -1.0), "max": np.full(f.shape, 1.0)}
        | {"mean": np.zeros(f.shape), "std": np.ones(f.shape)}
        for name, f in {**spec.observation, "action": spec.action}.items()
    }
    policy = build_policy({**POLICY, "sampler": SAMPLER}, spec, stats)
    folder = tmp_path / "run"
    save_policy(
        folder / "checkpoints" / "best", policy,
        config={"policy": POLICY, "sampler": SAMPLER, "task": "point_mass", "seed": 0},
        stats=stats, dataset_card={"name": "demos.zarr", "fingerprint": "f00d"},
    )  # fmt: skip
    return folder


def test_every_disturbance_is_evaluated_on_the_same_seeds(run_folder, tmp_path, capsys):
    """A rate and a paired test per combination; the disturbance is part of the protocol; once is enough."""
    words = [
        "sweep", f"checkpoints={run_folder}", f"output={tmp_path / 'out'}", "disturbances=none,push,latency",
        "episodes=3", "workers=0", "device=cpu", "video.keep=none", "latency_calls=0",
    ]  # fmt: skip
    assert main(words) == 0
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
    assert [row["disturbance"] for row in rows] == ["none", "push", "latency"]
    assert rows[0]["p_value"] is None
    assert 0 <= rows[1]["p_value"] <= 1
    protocols = [json.loads((tmp_path / "out" / p / "protocol.json").read_text()) for p in (
        "0-run_none", "0-run_push", "0-run_latency")]  # fmt: skip
    assert protocols[0]["seeds"] == protocols[1]["seeds"] == protocols[2]["seeds"]
    assert "disturbance" not in protocols[0]["task"]
    assert protocols[2]["task"]["disturbance"] == {"type": "latency", "steps": 2}
    assert "Success rates" in (tmp_path / "out" / "sweep.html").read_text()
    before = [(tmp_path / "out" / "0-run_push" / "results.jsonl").read_bytes()]
    assert main(words) == 0
    assert [(tmp_path / "out" / "0-run_push" / "results.jsonl").read_bytes()] == before
    assert "against the first" in capsys.readouterr().out


def test_an_evaluation_ends_early_when_the_rate_is_clear(run_folder, tmp_path):
    """An untrained policy is below 90 % after few episodes; the page and the summary say why it stopped."""
    words = [
        "eval", f"checkpoint={run_folder}", f"output_dir={tmp_path / 'out'}", "episodes=200", "workers=0",
        "n_envs=2", "device=cpu", "video.keep=none", "latency_calls=0", "stop={reference: 0.9}",
    ]  # fmt: skip
    assert main(words) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 10 <= summary["n_episodes"] < 40
    assert "below 0.9" in summary["stopped"]
    assert "Stopped early" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["output=x"], "checkpoints: missing"),
        (["checkpoints=a,a", "output=x"], "given twice"),
        (["checkpoints=a", "output=x", "disturbances=none,psuh"], "psuh"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(words, problem, capsys, tmp_path, monkeypatch):
    """One line and status 2."""
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *words]) == 2
    assert problem in capsys.readouterr().err
