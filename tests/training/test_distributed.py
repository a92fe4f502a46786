"""Two processes of torchrun's launcher, on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from robot_policies.training.train import train

# The launching process is a fresh one that imports everything once; torchrun's own launcher then forks its two
# workers, which train one run after another with the small policy of conftest.py. A run with "stop_at" is sent
# SIGTERM in one process only, in the middle of that step.
SCRIPT = """
import importlib.util, json, os, signal, sys
spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
import torch._dynamo
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from robot_policies.training import train as module
real = module.train_step

def work():
    for entry in json.loads(sys.argv[2]):
        def step(state, *args):
            if state.step == entry["stop_at"] and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGTERM)
            return real(state, *args)
        module.train_step = step
        try:
            module.train(entry["config"])
            assert entry["stop_at"] is None
        except module.TrainingInterrupted:
            assert entry["stop_at"] is not None

config = LaunchConfig(
    min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", rdzv_backend="c10d",
    rdzv_endpoint="localhost:0", run_id="test", max_restarts=0,
)
elastic_launch(config, work)()
"""


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "checkpoints" / "last" / "policy.safetensors")


def read_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def launch(command: list[str]) -> None:
    """Run to success; a deadlock ends the whole family of processes."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        errors = process.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its workers
        process.communicate(timeout=60)
        raise
    assert process.returncode == 0, errors[-3000:]


def test_two_processes(make_config, tmp_path):
    """2 x 4 windows learn what 1 x 8 do, from the same samples; stopping one stops both; resuming is exact."""
    quiet = {"policy": {"type": "behaviour_cloning"}}
    runs = [
        {"config": make_config("two", top=quiet, batch_size=4, accumulate=2), "stop_at": None},
        {"config": make_config("whole", batch_size=4), "stop_at": None},
        {"config": make_config("cut", batch_size=4), "stop_at": 12},
        {"config": make_config("cut", batch_size=4), "stop_at": None},
    ]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    helpers = str(Path(__file__).with_name("conftest.py"))
    launch([sys.executable, str(script), helpers, json.dumps(runs)])

    one = train(make_config("one", top=quiet, batch_size=8, accumulate=2))
    two = read_weights(tmp_path / "two")
    for key, value in read_weights(one).items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
    lines = read_lines(one), read_lines(tmp_path / "two")
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    losses = [[line["loss"] for line in part if line["kind"] == "train"] for part in lines]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert lines[1][0]["epoch"] == lines[0][0]["epoch"]

    whole = read_weights(tmp_path / "whole")
    for key, value in read_weights(tmp_path / "cut").items():
        assert torch.equal(value, whole[key])
