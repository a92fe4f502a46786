"""The command that records experts, from its arguments to its store."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from robot_datasets.store import EpisodeStore
from robot_policies.cli.hydra_app import compose_config
from robot_policies.cli.main import main

needs_simulators = pytest.mark.skipif(find_spec("robosuite") is None, reason="the sim extra is not installed")


@needs_simulators
def test_generate_writes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One clean demonstration without workers: a store at the place asked for, and a summary."""
    target = tmp_path / "demos.zarr"
    arguments = [
        "generate",
        "task=lift",
        "episodes=1",
        "noise=0",
        "workers=0",
        "seed_start=50",
        f"output={target}",
    ]
    assert main(arguments) == 0
    store = EpisodeStore.open(target)
    assert list(store.episodes["source_id"]) == ["lift/seed-000050"]
    assert store.attributes["conversion"]["options"]["expert_options"] == {"noise": 0.0}
    printed = capsys.readouterr()
    assert "1 episodes" in printed.out
    assert "succeeded on 1 of 1 seeds" in printed.out
    assert main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


@needs_simulators
def test_a_back_end_that_mujoco_does_not_know_is_one_line(tmp_path: Path) -> None:
    """MuJoCo refuses MUJOCO_GL while it is imported, in the middle of looking for the task."""
    command = [sys.executable, "-m", "robot_policies.cli.main", "generate", "task=lift"]
    done = subprocess.run(
        [*command, f"output={tmp_path / 'demos.zarr'}"],
        env={**os.environ, "MUJOCO_GL": "nonsense"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nonsense; unset MUJOCO_GL, or set it to egl or osmesa" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no value for output"),
        (["task=pusht"], "no scripted expert"),
        (["task=robosuite/Door"], "choose one of: robosuite/Can"),
        (["task=lfit"], "did you mean 'lift'"),
        (["episodes=0"], "episodes is 0, expected at least 1"),
        (["workers=-2"], "workers: -2, expected 0 or more"),
        (["episdes=3"], "did you mean 'episodes'"),
        (["noise=much"], "noise"),
    ],
)
def test_bad_input_ends_in_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Each mistake is named with what to do about it, and no file appears."""
    if arguments:
        arguments = [*arguments, f"output={tmp_path / 'demos.zarr'}"]
    assert main(["generate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@needs_simulators
@pytest.mark.parametrize("task", ["lift", "pusht"])
def test_the_configured_task_options_are_the_tasks_own(task: str) -> None:
    """Every option of a task's YAML file is one that the task knows, with the same default."""
    from robot_sim.registry import task_defaults

    options = dict(compose_config("generate", [f"task={task}", "output=x"])["task"])
    assert options.pop("name") == task
    defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in task_defaults(task).items()}
    assert options == defaults
