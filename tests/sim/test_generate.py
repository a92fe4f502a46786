"""Demonstrations: seed order, failures set aside, the same bytes whatever happens on the way."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot_datasets.errors import UserError
from robot_datasets.features import ACTION, STATE
from robot_datasets.store import EpisodeStore
from robot_sim.generate import GenerationPlan, GenerationProgress, generate
from robot_sim.registry import TaskError, make_expert


def _digest(store: Path) -> dict[str, str]:
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


class _StopError(Exception):
    """Stands for Ctrl-C or a crash."""


def test_episodes_come_in_seed_order_and_failures_are_listed(walk_task: str, tmp_path: Path) -> None:
    """Every fourth seed fails: it is named in the store with a reason, and another seed makes up for it."""
    report = generate(GenerationPlan(task=walk_task, episodes=6), tmp_path / "s.zarr", workers=0)
    store = EpisodeStore.open(tmp_path / "s.zarr")
    assert list(store.episodes["source_id"]) == [f"walk/seed-{seed:06d}" for seed in (0, 1, 2, 4, 5, 6)]
    assert report.failed == {"walk/seed-000003": "no success in 20 steps"} == store.quarantined
    assert (report.n_episodes, report.n_steps, report.unchanged) == (6, store.n_steps, False)
    assert store.tasks == ["walk to one"]
    assert store.embodiment == "point"
    assert store.fps == 5.0


def test_the_recorded_action_is_the_intended_one(walk_task: str, tmp_path: Path) -> None:
    """The expert executes doubled strides; the store holds the strides themselves, and the states they led to."""
    generate(GenerationPlan(task=walk_task, episodes=1), tmp_path / "s.zarr", workers=0)
    store = EpisodeStore.open(tmp_path / "s.zarr")
    action, state = store.column(ACTION)[:, 0], store.column(STATE)[:, 0]
    assert np.abs(action).max() <= 0.1
    np.testing.assert_allclose(np.diff(state), 2 * action[:-1], atol=1e-6)


def test_the_store_says_how_it_was_made(walk_task: str, tmp_path: Path) -> None:
    """Options in force, defaults included, and the simulator's version."""
    generate(GenerationPlan(task=walk_task, episodes=1), tmp_path / "s.zarr", workers=0)
    record = EpisodeStore.open(tmp_path / "s.zarr").attributes["conversion"]
    assert record["importer"] == "robot_sim.generate"
    assert record["options"]["task_options"] == {"images": False}
    assert record["options"]["seed_start"] == 0
    assert record["simulator"] == {"numpy": np.__version__}


def test_an_interrupted_run_ends_in_the_same_bytes(walk_task: str, tmp_path: Path) -> None:
    """Stopped twice, once right after a failure, and started again: nothing is tried twice or left out."""
    plan = GenerationPlan(task=walk_task, task_options={"images": True}, episodes=6)
    generate(plan, tmp_path / "whole.zarr", workers=0)
    attempts: list[GenerationProgress] = []

    def stop_at(count: int) -> None:
        def progress(now: GenerationProgress) -> None:
            attempts.append(now)
            if now.done + now.failed == count:
                raise _StopError

        with pytest.raises(_StopError):
            generate(plan, tmp_path / "cut.zarr", workers=0, progress=progress)

    stop_at(2)
    stop_at(4)
    report = generate(plan, tmp_path / "cut.zarr", workers=0, progress=attempts.append)
    assert report.n_resumed == 3
    assert [now.done + now.failed for now in attempts] == list(range(1, 8))
    assert _digest(tmp_path / "cut.zarr") == _digest(tmp_path / "whole.zarr")


def test_doing_it_again_does_nothing(walk_task: str, tmp_path: Path) -> None:
    """The same plan finds its store; another plan refuses to replace it unless told to."""
    plan, target = GenerationPlan(task=walk_task, episodes=2), tmp_path / "s.zarr"
    generate(plan, target, workers=0)
    before = _digest(target)
    assert generate(plan, target, workers=0).unchanged
    assert _digest(target) == before
    other = GenerationPlan(task=walk_task, episodes=3)
    with pytest.raises(TaskError, match="already holds a store"):
        generate(other, target, workers=0)
    assert generate(other, target, workers=0, overwrite=True).n_episodes == 3


def test_held_out_seeds_are_not_demonstrated(walk_task: str, tmp_path: Path) -> None:
    """Running into the evaluation's seeds stops the generation instead of spoiling the evaluation."""
    plan = GenerationPlan(task=walk_task, episodes=10, seed_start=996)
    with pytest.raises(TaskError, match="seed 1000 is held out"):
        generate(plan, tmp_path / "s.zarr", workers=0)


def test_an_expert_that_never_succeeds_is_given_up(
    walk_task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an endless loop but a message, and no store."""
    monkeypatch.setattr(type(make_expert(walk_task)), "perturb", lambda self, action: 0 * action)
    with pytest.raises(TaskError, match="failed 25 times in a row"):
        generate(GenerationPlan(task=walk_task, episodes=1), tmp_path / "s.zarr", workers=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"seed_start": -1}, "seed_start is -1"),
        ({"task": "wlk"}, "did you mean 'walk'"),
        ({"expert_options": {"noise": 1.0}}, "unknown option 'noise'"),
        ({"task_options": {"images": True}, "image_encoding": "gif"}, "unknown image encoding 'gif'"),
    ],
)
def test_a_bad_plan_is_refused_before_anything_is_written(
    walk_task: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """One line, and an empty folder."""
    with pytest.raises(UserError, match=message):
        generate(GenerationPlan(**{"task": walk_task, **changes}), tmp_path / "s.zarr", workers=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("mujoco") is None, reason="the sim extra is not installed")
def test_worker_processes_write_the_same_bytes_as_none(tmp_path: Path) -> None:
    """Demonstrations from two spawned workers equal those made in this process, file by file."""
    plan = GenerationPlan(task="tabletop_pick_place", episodes=2)
    generate(plan, tmp_path / "here.zarr", workers=0)
    generate(plan, tmp_path / "workers.zarr", workers=2)
    assert _digest(tmp_path / "here.zarr") == _digest(tmp_path / "workers.zarr")
